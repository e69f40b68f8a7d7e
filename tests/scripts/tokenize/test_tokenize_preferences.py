"""Ids of pairs: sampled ones untouched, imported ones by the template, nothing truncated."""

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from small_model import CHATML, TEMPLATE, make_tokenizer

from prefline import files
from prefline.data import tables
from prefline.errors import InputError
from prefline.text import chat
from scripts.tokenize import tokenize_preferences as tokenize

QUESTION = [{"role": "user", "content": "Which bird is blue?"}]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(CHATML, bos_token=None)


def preference(prompt_id="a", split="train", prompt=(1, 2, 3), chosen=(7, 8, 2), rejected=(9, 2), **changes):
    sampled = prompt is not None
    return {
        "prompt_id": prompt_id,
        "split": split,
        "messages": QUESTION,
        "chosen": "a jay",
        "rejected": "a robin",
        "chosen_reward": 1.0,
        "rejected_reward": 0.0,
        "chosen_win_probability": 0.75,
        "rejected_win_probability": 0.25,
        "chosen_sample": 0 if sampled else None,
        "rejected_sample": 1 if sampled else None,
        "prompt_ids": list(prompt) if sampled else None,
        "chosen_ids": list(chosen) if sampled else None,
        "rejected_ids": list(rejected) if sampled else None,
        **changes,
    }


def run(folder, rows, tokenizer, max_prompt_length=100, max_completion_length=100, max_length="null"):
    tables.write(folder / "preferences.parquet", rows, tables.PREFERENCES)
    tokenizer.save_pretrained(folder / "policy")
    transformers.LlamaConfig(vocab_size=len(tokenizer) + 1).save_pretrained(folder / "policy")
    tokenize.main(
        [
            *("--preferences", str(folder / "preferences.parquet"), "--tokenizer", str(folder / "policy")),
            *("--max-prompt-length", str(max_prompt_length)),
            *("--max-completion-length", str(max_completion_length)),
            *("--max-length", str(max_length), "--max-dropped", "0.2"),
            *("--out", str(folder / "tokenized.parquet"), "--metrics", str(folder / "tokenized.json")),
        ]
    )
    rows = tables.read_rows(folder / "tokenized.parquet", tables.TOKENIZED)
    return rows, files.read_json(folder / "tokenized.json")


def test_sampled_ids_are_kept_as_sampled(tmp_path, tokenizer):
    row = preference(chosen=(90, 91, 92, 2), rejected=(93,))
    (written,), _ = run(tmp_path, [row], tokenizer)
    assert written == {name: row[name] for name in tables.TOKENIZED.names}


def test_imported_pairs_are_tokenized_by_the_template(tmp_path, tokenizer):
    row = preference(prompt=None, chosen_reward=None, rejected_reward=None)
    (written,), _ = run(tmp_path, [row], tokenizer)
    prompt, chosen = chat.prompt_and_completion_ids(tokenizer, QUESTION, "a jay")
    assert written["prompt_ids"] == prompt
    assert (
        tokenizer.decode(prompt) == "<|im_start|>user\nWhich bird is blue?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert written["chosen_ids"] == chosen
    assert tokenizer.decode(chosen) == "a jay<|im_end|>"
    assert tokenizer.decode(written["rejected_ids"]) == "a robin<|im_end|>"
    assert written["chosen_reward"] is None


def test_imported_pairs_have_one_bos(tmp_path):
    once = make_tokenizer(TEMPLATE)
    (written,), _ = run(tmp_path, [preference(prompt=None)], once)
    assert written["prompt_ids"].count(once.bos_token_id) == 1
    assert written["prompt_ids"][0] == once.bos_token_id


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ bos_token }}" + TEMPLATE, r"writes the BOS token '<\|begin_of_text\|>' more than once"),
        ("{{ raise_exception('only poems') }}", "refuses the messages: only poems"),
    ],
)
def test_what_a_template_makes_of_a_row_is_one_sentence_with_the_row(tmp_path, template, message):
    with pytest.raises(InputError, match=rf"preferences\.parquet, row 0 \(prompt_id a\): .*{message}"):
        run(tmp_path, [preference(prompt=None)], make_tokenizer(template))
    assert not (tmp_path / "tokenized.parquet").exists()


def test_a_row_that_the_template_refuses_stops_no_job(tmp_path):
    template = CHATML.replace(
        "{% for", "{{ raise_exception('no poems') if 'poem' in messages[0].content }}{% for", 1
    )
    poem = preference("poem", prompt=None, messages=[{"role": "user", "content": "A poem!"}])
    rows = [preference(str(number), prompt=None) for number in range(5)]
    written, metrics = run(tmp_path, [*rows, poem], make_tokenizer(template))
    assert [row["prompt_id"] for row in written] == [str(number) for number in range(5)]
    assert metrics["splits"]["train"]["dropped"]["template"] == 1


def test_a_completion_with_a_label_has_no_other_side(tmp_path, tokenizer):
    good, bad = preference("good", prompt=None), preference("bad", prompt=None)
    written, metrics = run(tmp_path, [good | {"rejected": None}, bad | {"chosen": None}], tokenizer)
    assert [tokenizer.decode(row["chosen_ids"] or []) for row in written] == ["a jay<|im_end|>", ""]
    assert [tokenizer.decode(row["rejected_ids"] or []) for row in written] == ["", "a robin<|im_end|>"]
    assert [row["rejected_ids"] is None for row in written] == [True, False]
    assert metrics["splits"]["train"]["kept"] == 2


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (CHATML.replace("<|im_start|>assistant\n{% endif", "Answer:{% endif"), "begins an answer with"),
        (CHATML.replace("<|im_end|>", "").replace("<|im_start|>", "#"), "ends an answer without"),
    ],
)
def test_a_bad_template_is_one_sentence_with_the_policy(tmp_path, template, message):
    with pytest.raises(InputError, match=rf"policy: the chat template {message}"):
        run(tmp_path, [preference(prompt=None)], make_tokenizer(template))
    assert not (tmp_path / "tokenized.parquet").exists()


def test_drops_are_counted_and_lengths_reported_before_them(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenize, "ROWS_AT_ONCE", 2)
    rows = [
        preference("fits", prompt=[5] * 4, chosen=[6] * 3, rejected=[7] * 3),
        preference("same", prompt=[5] * 9, chosen=[6], rejected=[6]),
        preference("prompt", prompt=[5] * 5, chosen=[6] * 9, rejected=[7]),
        preference("chosen", prompt=[5], chosen=[6] * 4, rejected=[7]),
        preference("rejected", prompt=[5], chosen=[6], rejected=[7] * 4),
        preference("test", split="test"),
    ]
    written, metrics = run(tmp_path, rows, tokenizer, max_prompt_length=4, max_completion_length=3)
    assert [row["prompt_id"] for row in written] == ["fits", "test"]
    assert metrics["splits"] == {
        "train": {
            "pairs": 5,
            "kept": 1,
            "dropped": {
                "template": 0,
                "identical_ids": 1,
                "long_prompt": 1,
                "long_completion": 2,
                "long_pair": 0,
            },
        },
        "test": {
            "pairs": 1,
            "kept": 1,
            "dropped": {
                "template": 0,
                "identical_ids": 0,
                "long_prompt": 0,
                "long_completion": 0,
                "long_pair": 0,
            },
        },
    }
    assert metrics["lengths"]["prompt_ids"] == {"50": 3, "90": 9, "95": 9, "99": 9, "100": 9}
    assert metrics["lengths"]["chosen_ids"]["100"] == 9
    assert metrics["lengths"]["rejected_ids"]["100"] == 4


def test_the_file_is_the_same_bytes_again(tmp_path, tokenizer):
    rows = [preference(str(number), prompt=None) for number in range(5)]
    run(tmp_path, rows, tokenizer)
    first = (tmp_path / "tokenized.parquet").read_bytes()
    run(tmp_path, rows, tokenizer)
    assert (tmp_path / "tokenized.parquet").read_bytes() == first


@pytest.mark.parametrize(
    ("limits", "key"),
    [
        ({"max_prompt_length": 2}, r"prompts have 3 tokens or more.*tokenize\.max_prompt_length is 2"),
        ({"max_completion_length": 1}, r"answers 3 or more.*tokenize\.max_completion_length is 1"),
    ],
)
def test_no_pair_left_is_an_error_that_names_the_key(tmp_path, tokenizer, limits, key):
    with pytest.raises(InputError, match=key):
        run(tmp_path, [preference(), preference("t", split="test")], tokenizer, **limits)
    assert not (tmp_path / "tokenized.parquet").exists()


def test_a_sampled_id_that_only_the_model_has_is_kept(tmp_path, tokenizer):
    """Embeddings are often padded to a round number of rows; a policy may sample one of those."""
    (written,), _ = run(tmp_path, [preference(chosen=[len(tokenizer), 2])], tokenizer)
    assert written["chosen_ids"] == [len(tokenizer), 2]


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "vocab_size": 7},
        {"model_type": "llama"},
        {"model_type": "qwen2", "vocab_size": 7},
        {"model_type": "gemma3", "vocab_size": 7, "text_config": {"vocab_size": 8}},
    ],
)
def test_the_vocabulary_is_what_the_library_says(tmp_path, config):
    files.write_json(tmp_path / "config.json", config)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path).get_text_config().vocab_size
    assert tokenize.vocabulary(tmp_path) == theirs


@pytest.mark.parametrize("ids", [[5, 300_000], [-1]])
def test_an_id_outside_the_vocabulary_is_named(tmp_path, tokenizer, ids):
    rows = [preference("a"), preference("b", rejected=ids)]
    with pytest.raises(
        InputError, match=r"row 1 \(prompt_id b\): rejected_ids has an id outside the vocabulary"
    ):
        run(tmp_path, rows, tokenizer)


def test_an_empty_answer_is_named(tmp_path, tokenizer):
    with pytest.raises(InputError, match="chosen_ids has no tokens"):
        run(tmp_path, [preference(chosen=[])], tokenizer)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=300))
def test_percentiles_are_lengths_that_hold_as_limits(lengths):
    for percent, value in tokenize.percentiles(lengths).items():
        assert value in lengths
        assert np.mean(np.array(lengths) <= value) >= int(percent) / 100


@given(
    st.lists(st.tuples(*[st.booleans()] * 2, *[st.integers(1, 9)] * 3), min_size=1, max_size=20),
    *[st.none() | st.integers(1, 12)] * 3,
)
def test_a_pair_within_the_limits_is_kept_and_no_other(pairs, longest_prompt, longest_completion, longest):
    refused, identical, *counts = (np.array(column) for column in zip(*pairs, strict=True))
    limits = dict(zip(tokenize.LIMITS, (longest_prompt, longest_completion, longest), strict=True))
    reasons = tokenize.drop_reasons(refused, identical, tokenize.limited(*counts), limits)
    for (bad, same, prompt, chosen, rejected), reason in zip(pairs, reasons, strict=True):
        completion = max(chosen, rejected)
        measured = (prompt, completion, prompt + completion)
        fits = all(
            limit is None or length <= limit for length, limit in zip(measured, limits.values(), strict=True)
        )
        assert (reason == "") == (fits and not same and not bad)


def test_a_percentile_limits_by_the_training_pairs_alone(tmp_path, tokenizer):
    """With the published recipe's p95, the longest twentieth is dropped whole; nothing is truncated."""
    rows = [preference(str(n), prompt=[5] * n, chosen=[6] * n, rejected=[7]) for n in range(1, 21)]
    rows += [preference("held out", split="test", prompt=[5] * 99)]
    written, metrics = run(tmp_path, rows, tokenizer, "p95", "null", "p50")
    assert metrics["limits"] == {"max_prompt_length": 19, "max_completion_length": None, "max_length": 20}
    assert [row["prompt_id"] for row in written] == [str(n) for n in range(1, 11)]
    assert metrics["splits"]["train"]["dropped"]["long_prompt"] == 1
    assert metrics["splits"]["train"]["dropped"]["long_pair"] == 9
    assert metrics["splits"]["test"]["kept"] == 0

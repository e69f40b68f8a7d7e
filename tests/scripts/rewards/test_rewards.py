"""The reward model's scores: the model's own, in float32, whatever the batch."""

import math
import secrets

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_model import CHATML, make_model, make_tokenizer

from prefline import rewards
from prefline.data import tables
from prefline.errors import InputError
from prefline.rewards import scorers
from scripts.rewards import score_completions

QUESTION = [{"role": "user", "content": "Which bird is blue?"}]


def save_model(path, architecture="LlamaForSequenceClassification", num_labels=1, pad="<|pad|>", **config):
    tokenizer = make_tokenizer(CHATML, bos_token=None, pad_token=pad)
    config |= {"num_labels": num_labels, "pad_token_id": tokenizer.pad_token_id}
    return make_model(
        path, tokenizer, architecture, num_key_value_heads=1, max_position_embeddings=256, **config
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("llama"))


def answers(lengths):
    return [
        rewards.Dialogue(
            QUESTION, "".join(chr(97 + (7 * row + place) % 26) for place in range(length)), f"row {row}"
        )
        for row, length in enumerate(lengths)
    ]


@pytest.mark.parametrize(
    "family",
    ["Llama", "Mistral", "Qwen2", "GPT2"],  # the last with absolute positions, which padding must not move
)
def test_scores_are_the_models_own_row_by_row(tmp_path, family):
    path = save_model(tmp_path, f"{family}ForSequenceClassification")
    dialogues = answers([3, 90, 1, 40, 0, 17])
    scorer = scorers.load(path, batch_tokens=300, dtype="float32")
    own = transformers.AutoModelForSequenceClassification.from_pretrained(path)
    expected = [own(torch.tensor([scorer.ids(dialogue)])).logits.item() for dialogue in dialogues]
    scores = scorers.score(scorer, dialogues)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.std(scores) > 0.1, "scores that are all alike would prove nothing"


def test_a_dialogue_that_ends_in_the_padding_token_is_read_before_it_as_in_its_training(tmp_path):
    path = save_model(tmp_path, pad="<|im_end|>")
    (tmp_path / "chat_template.jinja").write_text(CHATML.replace("<|im_end|>\n", "<|im_end|>"))
    scorer = scorers.load(path, batch_tokens=1000, dtype="float32")
    ids = [scorer.ids(dialogue) for dialogue in answers([4, 30])]
    assert all(row[-1] == scorer.tokenizer.pad_token_id for row in ids)
    own = transformers.AutoModelForSequenceClassification.from_pretrained(path)
    expected = [own(torch.tensor([row])).logits.item() for row in ids]
    np.testing.assert_allclose(scorers.score(scorer, answers([4, 30])), expected, atol=1e-5)


@given(lengths=st.lists(st.integers(0, 120), min_size=1, max_size=8), batch_tokens=st.integers(1, 600))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_score_does_not_depend_on_the_batch(llama, lengths, batch_tokens):
    scorer = scorers.load(llama, batch_tokens, "float32")
    sizes, forward = [], scorer._forward

    def watched(rows):
        sizes.append((len(rows), max(map(len, rows))))
        return forward(rows)

    scorer._forward = watched
    scores = scorers.score(scorer, answers(lengths))
    assert all(rows == 1 or rows * longest <= batch_tokens for rows, longest in sizes)
    alone = [scorers.score(scorer, [dialogue])[0] for dialogue in answers(lengths)]
    np.testing.assert_allclose(scores, alone, atol=1e-4)


def test_out_of_memory_halves_the_batch_and_goes_on(llama, capsys):
    dialogues = answers([50, 3, 20, 90, 7, 33])
    scorer = scorers.load(llama, batch_tokens=1000, dtype="float32")
    expected = scorers.score(scorer, dialogues)
    forward = scorer._forward

    def short_of_memory(rows):
        if len(rows) * max(map(len, rows)) > 200:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(rows)

    scorer._forward = short_of_memory
    np.testing.assert_allclose(scorers.score(scorer, dialogues), expected, atol=1e-4)
    assert "out of memory: continuing with" in capsys.readouterr().out


def test_a_row_that_alone_is_too_much_stops_and_other_faults_are_not_hidden(llama):
    scorer = scorers.load(llama, batch_tokens=1000, dtype="float32")

    def broken(message):
        def forward(rows):
            raise RuntimeError(message)

        return forward

    for message in ("CUDA out of memory", "device-side assert"):
        scorer._forward = broken(message)
        with pytest.raises(RuntimeError, match=message):
            scorers.score(scorer, answers([3, 4]))


def test_bfloat16_is_for_the_body_alone(llama):
    exact = scorers.load(llama, 1000, "float32")
    rounded = scorers.load(llama, 1000, "bfloat16")
    assert rounded.head.weight.dtype == torch.float32
    assert torch.equal(rounded.head.weight, exact.head.weight)
    assert {parameter.dtype for parameter in rounded.body.parameters()} == {torch.bfloat16}
    assert rounded.body.rotary_emb.inv_freq.dtype == torch.float32
    dialogues = answers(range(0, 60, 3))
    scores = scorers.score(rounded, dialogues)
    assert scores.dtype == np.float32
    assert not np.array_equal(scores, torch.tensor(scores).bfloat16().float().numpy()), "rounded to 8 bits"
    assert np.corrcoef(scores, scorers.score(exact, dialogues))[0, 1] > 0.99


def test_two_labels_are_refused(tmp_path):
    with pytest.raises(InputError, match="a reward model with 2 labels where one is needed"):
        scorers.load(save_model(tmp_path, num_labels=2), 100, "float32")


def test_a_model_without_a_trained_head_is_refused(tmp_path):
    path = save_model(tmp_path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path)
    model.save_pretrained(
        path, state_dict={k: v for k, v in model.state_dict().items() if k != "score.weight"}
    )
    with pytest.raises(InputError, match=r"lacks the weights score\.weight"):
        scorers.load(path, 100, "float32")


def test_a_dialogue_beyond_the_context_is_named(llama):
    scorer = scorers.load(llama, 1000, "float32")
    with pytest.raises(InputError, match=r"row 1: has .* tokens, the reward model reads 256"):
        scorers.score(scorer, answers([3, 800]))


def test_a_dialogue_whose_positions_would_depend_on_its_batch_is_named(tmp_path):
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64}
    rope |= {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    path = save_model(tmp_path, rope_parameters=rope)
    scorer = scorers.load(path, 1000, "float32")
    scorers.score(scorer, answers([3]))
    with pytest.raises(InputError, match=r"row 1: has \d+ tokens, the reward model reads 64"):
        scorers.score(scorer, answers([3, 200]))


def write_shard(folder):
    prompts = [
        {"prompt_id": name, "messages": QUESTION, "prompt_ids": [1], "reference": None}
        for name in ("p0", "p1")
    ]
    completions = [
        {
            "prompt_id": name,
            "sample": sample,
            "completion_ids": [4],
            "completion": f"{name} {'a' * sample}",
            "finish_reason": "stop",
            "seed": 1,
        }
        for name in ("p1", "p0")
        for sample in (0, 1, 2)
    ]
    tables.write(folder / "prompts.parquet", prompts, tables.PROMPTS)
    tables.write(folder / "completions.parquet", completions, tables.COMPLETIONS)
    return completions


def flags(folder, model):
    return [
        *("--prompts", str(folder / "prompts.parquet"), "--completions", str(folder / "completions.parquet")),
        *("--model", str(model), "--head-weights", "null", "--batch-tokens", "300", "--dtype", "float32"),
        *("--journal", str(folder / secrets.token_hex(4)), "--out", str(folder / "rewards.parquet")),
    ]


def test_the_script_keeps_the_order_of_the_completions(tmp_path, llama):
    completions = write_shard(tmp_path)
    score_completions.main(flags(tmp_path, llama))
    first = (tmp_path / "rewards.parquet").read_bytes()
    rows = tables.read_rows(tmp_path / "rewards.parquet", tables.REWARDS)
    assert [(row["prompt_id"], row["sample"]) for row in rows] == [
        (row["prompt_id"], row["sample"]) for row in completions
    ]
    scorer = scorers.load(llama, 300, "float32")
    alone = [
        scorers.score(scorer, [rewards.Dialogue(QUESTION, row["completion"], "")])[0] for row in completions
    ]
    np.testing.assert_allclose([row["reward"] for row in rows], alone, atol=1e-4)
    score_completions.main(flags(tmp_path, llama))
    assert (tmp_path / "rewards.parquet").read_bytes() == first


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_no_number_names_its_row_and_leaves_no_file(tmp_path, llama, value, monkeypatch):
    write_shard(tmp_path)
    from prefline.rewards.sequence_classifier import SequenceClassifier

    def forward(self, rows):
        longest = max(map(len, rows))
        return rewards.Scores(np.array([value if len(row) == longest else 0.0 for row in rows]))

    monkeypatch.setattr(SequenceClassifier, "_forward", forward)
    with pytest.raises(
        InputError, match=r"completions\.parquet: prompt_id p1, sample 2: .* score is (nan|inf)"
    ):
        score_completions.main(flags(tmp_path, llama))
    assert not (tmp_path / "rewards.parquet").exists()


def test_a_completion_of_an_unknown_prompt_is_named(tmp_path, llama):
    write_shard(tmp_path)
    tables.write(tmp_path / "prompts.parquet", [], tables.PROMPTS)
    with pytest.raises(InputError, match="prompt_id p1, sample 0: the shard's prompts do not have it"):
        score_completions.main(flags(tmp_path, llama))

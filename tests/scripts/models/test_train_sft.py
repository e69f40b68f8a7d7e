"""SFT: what is learnt of a dialogue, what is dropped, and that it is learnt."""

import pytest
import small_model
from hypothesis import given, settings
from hypothesis import strategies as st

from prefline import engines, files
from prefline.errors import InputError
from prefline.text import chat
from scripts.models import train_sft

COLUMNS = {"messages": "messages"}
TOKENIZER = small_model.make_tokenizer()
DIALOGUES = [
    [
        {"role": "user", "content": f"{number} + 1?"},
        {"role": "assistant", "content": f"{number + 1}"},
        {"role": "user", "content": "+ 1?"},
        {"role": "assistant", "content": f"{number + 2}."},
    ]
    for number in range(24)
]
TEXT = st.text(min_size=1, max_size=8).filter(lambda text: text.strip() and "<" not in text)


def read(path, columns=None):
    return train_sft.read(path, columns or COLUMNS, small_model.DATA, TOKENIZER, 64, 1)


def learnt(example, tokenizer=TOKENIZER):
    ids = [label for label in example["labels"] if label != train_sft.IGNORED]
    return tokenizer.decode(ids)


def the_only(tokenizer, messages):
    """The example of a dialogue that is a single one."""
    (example,) = train_sft.examples(tokenizer, messages)
    return example


def test_every_turn_of_the_assistant_is_learnt_with_its_end():
    example = the_only(TOKENIZER, DIALOGUES[4])
    assert learnt(example) == "5<|im_end|>6.<|im_end|>"
    assert example["input_ids"].count(TOKENIZER.bos_token_id) == 1
    assert example["input_ids"][-1] == TOKENIZER.eos_token_id
    assert all(
        label in (train_sft.IGNORED, token)
        for label, token in zip(example["labels"], example["input_ids"], strict=True)
    )


@settings(max_examples=50)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), st.booleans(), st.booleans())
def test_labels_are_the_answers_whatever_the_dialogue(turns, system, open_end):
    messages = [{"role": "system", "content": "Be brief."}] if system else []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if open_end:
        messages.append({"role": "user", "content": "And?"})
    example = the_only(TOKENIZER, messages)
    assert learnt(example) == "".join(f"{answer}<|im_end|>" for _, answer in turns)
    prompt, completion = chat.prompt_and_completion_ids(
        TOKENIZER, messages[: 2 * len(turns) - 1 + system], turns[-1][1]
    )
    assert example["input_ids"] == prompt + completion, "what sampling and scoring see"


def test_a_template_that_renders_earlier_answers_otherwise_gives_an_example_per_turn():
    """As templates that drop earlier thoughts do."""
    thinking = small_model.TEMPLATE.replace(
        "{{ message.content }}",
        "{% if message.role == 'assistant' and loop.last %}<think></think>{% endif %}{{ message.content }}",
    )
    tokenizer = small_model.make_tokenizer(thinking)
    examples = train_sft.examples(tokenizer, DIALOGUES[4])
    assert [learnt(one, tokenizer) for one in examples] == [
        "<think></think>5<|im_end|>",
        "<think></think>6.<|im_end|>",
    ]
    for number, example in zip((1, 3), examples, strict=True):
        asked = chat.prompt_ids(tokenizer, DIALOGUES[4][:number])
        assert example["input_ids"][: len(asked)] == asked, "what a policy would be asked"


def test_plain_text_is_all_the_assistants(tmp_path):
    """As in continued pretraining, but each text is a row of its own."""
    files.write_jsonl(tmp_path / "a.jsonl", [{"review": "A fine film."}, {"review": "x" * 99}])
    (example,), _, counts = read(str(tmp_path / "a.jsonl"), {"text": "review"})
    assert learnt(example) == f"A fine film.{TOKENIZER.eos_token}"
    assert example["input_ids"].count(TOKENIZER.bos_token_id) == 1
    assert train_sft.turn_of(example)[0] == [TOKENIZER.bos_token_id]
    assert counts["dropped"] == {"too_long": 1}


def write(path, dialogues):
    files.write_jsonl(path, [{"messages": dialogue} for dialogue in dialogues])
    return str(path)


def test_long_and_unanswered_dialogues_are_dropped_and_counted(tmp_path):
    long = [{"role": "user", "content": "x" * 99}, {"role": "assistant", "content": "y"}]
    path = write(tmp_path / "a.jsonl", [DIALOGUES[0], long, long[:1], DIALOGUES[1]])
    examples, names, counts = read(path)
    assert counts["dropped"] == {"no_assistant": 1, "too_long": 1}
    assert len(examples) == 2
    assert names == [f"{path}, line 1", f"{path}, line 4"]


@pytest.mark.parametrize(
    ("dialogues", "message"),
    [
        ([[{"role": "user", "content": "hello"}]], "0 kept, dropped: 1 no_assistant"),
        ([[{"role": "assistant", "content": "hello"}]], "line 1: begins with the assistant"),
        ([[{"role": "robot", "content": "hello"}]], "line 1: a message has the role 'robot'"),
        ([[{"role": "user", "content": " "}]], "line 1: the user message has no text"),
    ],
)
def test_bad_dialogues_are_named(tmp_path, dialogues, message):
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / "a.jsonl", dialogues))


SLOW_QLORA = pytest.param(small_model.QLORA, marks=pytest.mark.slow)


@pytest.mark.parametrize("peft", [None, small_model.LORA, SLOW_QLORA])
def test_the_assistant_is_learnt(tmp_path, peft, capsys):
    small_model.make_model(tmp_path / "start")
    data = write(tmp_path / "a.jsonl", DIALOGUES)
    words = small_model.flags(
        tmp_path / "out",
        model=tmp_path / "start",
        train_data=data,
        eval_data=data,
        columns=COLUMNS,
        max_length=64,
        num_train_epochs=4,
        peft=peft,
    )
    train_sft.main(words)
    _, metrics, log = small_model.results(tmp_path / "out")
    assert metrics["eval_loss"] < metrics["eval_loss_before"] - 0.2
    assert log[0]["loss"] == pytest.approx(metrics["eval_loss_before"], rel=0.1)
    if peft is not None:
        small_model.merge(tmp_path / "out", tmp_path / "start")
    model = tmp_path / "out" / ("model" if peft is None else "merged")
    config = files.read_json(model / "config.json")
    assert config["eos_token_id"] == [4, 1] and config["use_cache"] is True

    made = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    train_sft.main(words)
    assert "nothing to train" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in made} == made


def test_a_base_model_with_another_end_of_documents_learns_to_stop(tmp_path):
    """Its generation config and tokenizer know the end of documents alone, as Llama-3's and Qwen2.5's do."""
    tokenizer = small_model.make_tokenizer(eos_token="<|end_of_text|>")
    small_model.make_model(tmp_path / "start", tokenizer, ends=(1,))
    data = write(tmp_path / "a.jsonl", [dialogue[:2] for dialogue in DIALOGUES])
    train_sft.main(
        small_model.flags(
            tmp_path / "out",
            model=tmp_path / "start",
            train_data=data,
            eval_data=data,
            columns=COLUMNS,
            max_length=64,
            num_train_epochs=6,
        )
    )
    model = tmp_path / "out/model"
    start = files.read_json(tmp_path / "start/generation_config.json")
    assert files.read_json(model / "generation_config.json") == start | {"eos_token_id": [1, 4]}
    engine = engines.load("transformers", model, 8, "float32")
    requests = [
        engines.Request(chat.prompt_ids(tokenizer, dialogue[:1]), seed)
        for seed, dialogue in enumerate(DIALOGUES)
    ]
    made = engine.generate(requests, engines.Sampling(1.0, 1.0, 0, 24))
    stopped = [one for one in made if one.finish_reason == "stop"]
    assert len(stopped) > 0.9 * len(made)
    assert {one.ids[-1] for one in stopped} == {4}, "the template's end of turn"

"""The reward model: forms of its data, where its reward is read, and that it learns to rank."""

import pytest
import small_model
import torch

from prefline import files
from prefline.errors import InputError
from scripts.models import train_reward_model as reward_model

COLUMNS = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
USER = {"role": "user", "content": "Hi?"}
PAIRS = [
    {"prompt": f"What is {number}?", "chosen": f"{number}.", "rejected": f"Well, {number}, who knows?"}
    for number in range(32)
]


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Hi?", "Yes"),
        ([USER], "Yes"),
        ([USER], [assistant("Yes")]),
        ([USER], [USER, assistant("Yes")]),
        ("Hi?", [USER, assistant("Yes")]),
        (None, [USER, assistant("Yes")]),
    ],
)
def test_all_forms_are_one_dialogue(prompt, answer):
    assert reward_model.dialogue(prompt, answer, "here") == ([USER], "Yes")


@pytest.mark.parametrize(
    ("prompt", "answer", "message"),
    [
        (None, "Yes", "here: has an answer but no prompt"),
        ("Hi?", [USER], "here: chosen and rejected must end with the assistant, not the user"),
        ("Hi?", " ", "here: the assistant message has no text"),
        (7, "Yes", "here: a prompt is a string or a list"),
    ],
)
def test_bad_pairs_are_named(prompt, answer, message):
    with pytest.raises(InputError, match=message):
        reward_model.dialogue(prompt, answer, "here")


def test_equal_and_long_pairs_are_dropped_and_counted(tmp_path):
    equal = {"prompt": "a", "chosen": "b", "rejected": "b"}
    long = {"prompt": "a", "chosen": "b", "rejected": "c" * 99}
    files.write_jsonl(tmp_path / "a.jsonl", [equal, PAIRS[0], long])
    pairs, names, dropped = reward_model.read(
        str(tmp_path / "a.jsonl"), COLUMNS, small_model.make_tokenizer(), 64
    )
    assert dropped == {"identical": 1, "too_long": 1}
    assert names == [f"{tmp_path / 'a.jsonl'}, line 2"]
    for ids in pairs[0].values():
        assert (ids[0], ids[-1], ids.count(0), ids.count(4)) == (0, 4, 1, 2)


def test_padding_is_never_the_end_token():
    assert reward_model.padding_id(small_model.make_tokenizer()) == 2
    assert reward_model.padding_id(small_model.make_tokenizer(pad_token="<|im_end|>")) == 0
    assert reward_model.padding_id(small_model.make_tokenizer(pad_token=None)) == 0


@pytest.mark.parametrize(("special", "peft"), [({}, None), ({"pad_token": "<|im_end|>"}, small_model.QLORA)])
def test_it_learns_to_rank_and_loads_as_a_classifier(tmp_path, special, peft, capsys):
    from transformers import AutoModelForSequenceClassification

    small_model.make_model(tmp_path / "start", small_model.make_tokenizer(**special))
    for name, pairs in (("train", PAIRS[:24]), ("test", PAIRS[24:])):
        files.write_jsonl(tmp_path / f"{name}.jsonl", pairs)
    words = small_model.flags(
        tmp_path / "out",
        model=tmp_path / "start",
        train_data=tmp_path / "train.jsonl",
        eval_data=tmp_path / "test.jsonl",
        columns=COLUMNS,
        max_length=64,
        num_train_epochs=3,
        peft=peft,
    )
    reward_model.main(words)
    (made,) = (tmp_path / "out/model").glob("*model.safetensors")
    weights = made.read_bytes()
    reward_model.main(words)
    assert "nothing to train" in capsys.readouterr().out
    assert made.read_bytes() == weights
    trained = tmp_path / "out/model"
    if peft is not None:
        apart = small_model.merge(tmp_path / "out", tmp_path / "start", "quantized")
        assert apart["quantized"]["max_token"] < 1e-4 and apart["original"]["max_token"] > 1e-3
        trained = tmp_path / "out/merged"
    metrics = files.read_json(tmp_path / "out/metrics.json")
    assert metrics["eval_accuracy"] == 1.0
    assert metrics["eval_loss"] < metrics["eval_loss_before"]

    model = AutoModelForSequenceClassification.from_pretrained(trained).eval()
    assert model.config.num_labels == 1 and model.config.use_cache is True
    pairs, _, _ = reward_model.read(str(tmp_path / "test.jsonl"), COLUMNS, small_model.make_tokenizer(), 64)
    loss = []
    for pair in pairs:
        rewards = []
        for side in ("chosen_ids", "rejected_ids"):
            ids = torch.tensor([pair[side]])
            with torch.no_grad():
                alone = model(ids).logits.item()
                read_at_end = model.score(model.model(ids).last_hidden_state)[0, -1].item()
                padded = torch.nn.functional.pad(ids, (0, 3), value=model.config.pad_token_id)
                beside = model(padded, attention_mask=(torch.arange(padded.shape[1]) < ids.shape[1])[None])
            assert alone == pytest.approx(read_at_end, abs=1e-5)
            assert alone == pytest.approx(beside.logits.item(), abs=1e-5)
            rewards.append(alone)
        loss.append(-torch.nn.functional.logsigmoid(torch.tensor(rewards[0] - rewards[1])).item())
    assert metrics["eval_loss"] == pytest.approx(sum(loss) / len(loss), abs=1e-4)

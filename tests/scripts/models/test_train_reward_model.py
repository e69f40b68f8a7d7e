"""The reward model: forms of its data, where its reward is read, and that it learns to rank."""

import numpy as np
import pytest
import small_model
import torch

from prefline import files
from prefline import rewards as rewards_of
from prefline.rewards import scorers
from scripts.models import train_reward_model as reward_model

COLUMNS = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
USER = {"role": "user", "content": "Hi?"}
PAIRS = [
    {"prompt": f"What is {number}?", "chosen": f"{number}.", "rejected": f"Well, {number}, who knows?"}
    for number in range(32)
]


def assistant(text):
    return {"role": "assistant", "content": text}


def read(path):
    return reward_model.read(str(path), COLUMNS, small_model.DATA, small_model.make_tokenizer(), 64, 1)


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
def test_all_forms_are_one_dialogue(tmp_path, prompt, answer):
    other = answer[:-4] + "No" if isinstance(answer, str) else [*answer[:-1], assistant("No")]
    files.write_jsonl(tmp_path / "a.jsonl", [{"prompt": prompt, "chosen": answer, "rejected": other or "No"}])
    ((pair,), _, _) = read(tmp_path / "a.jsonl")
    tokenizer = small_model.make_tokenizer()
    told = "<|begin_of_text|><|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(pair["chosen_ids"]) == f"{told}Yes<|im_end|>\n"
    assert tokenizer.decode(pair["rejected_ids"]) == f"{told}No<|im_end|>\n"


def test_equal_and_long_pairs_are_dropped_and_counted(tmp_path):
    equal = {"prompt": "a", "chosen": "b", "rejected": "b"}
    long = {"prompt": "a", "chosen": "b", "rejected": "c" * 99}
    files.write_jsonl(tmp_path / "a.jsonl", [equal, PAIRS[0], long])
    pairs, names, counts = read(tmp_path / "a.jsonl")
    assert counts["dropped"] == {"identical": 1, "too_long": 1}
    assert names == [f"{tmp_path / 'a.jsonl'}, line 2"]
    for ids in pairs[0].values():
        assert (ids[0], ids[-2:], ids.count(0), ids.count(4)) == (0, [4, 203], 1, 2), "the whole dialogue"


@pytest.mark.parametrize(
    ("pad", "ids", "expected"),
    [
        ("<|pad|>", [0, 3, 9, 4], 2),
        ("<|im_end|>", [0, 3, 9, 4], 1),
        (None, [0, 3, 9, 4], 1),
        ("<|im_end|>", [0, 1, 2, 3, 9, 4], 0),  # all of them have been seen, and 4 ends the dialogue
    ],
)
def test_padding_is_a_token_that_no_dialogue_has_or_at_least_none_ends_with(pad, ids, expected):
    tokenizer = small_model.make_tokenizer(pad_token=pad)
    assert reward_model.padding_id(tokenizer, [{"chosen_ids": ids, "rejected_ids": ids}]) == expected


@pytest.mark.parametrize(
    ("special", "peft"),
    [
        ({}, None),
        ({"template": small_model.CHATML, "add_bos": True}, None),
        pytest.param({"pad_token": "<|im_end|>"}, small_model.QLORA, marks=pytest.mark.slow),
    ],
)
def test_it_learns_to_rank_and_loads_as_a_classifier(tmp_path, special, peft, capsys):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

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
    tokenizer = AutoTokenizer.from_pretrained(trained)
    assert tokenizer.pad_token_id == model.config.pad_token_id != tokenizer.eos_token_id
    scorer, loss = scorers.load(trained, 300, "float32"), []
    for pair in PAIRS[24:]:
        rewards = []
        for side in ("chosen", "rejected"):
            messages = [{"role": "user", "content": pair["prompt"]}, assistant(pair[side])]
            ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)["input_ids"]
            assert ids[0, -1] == tokenizer.eos_token_id
            assert ids[0, 0] == 0 and ids[0].tolist().count(0) == 1
            text = tokenizer.apply_chat_template(messages, tokenize=False).removeprefix(tokenizer.bos_token)
            begun = [] if special.get("add_bos") else [0]
            assert begun + tokenizer(text)["input_ids"] == ids[0].tolist()
            with torch.no_grad():
                alone = model(ids).logits.item()
                read_at_end = model.score(model.model(ids).last_hidden_state)[0, -1].item()
                padded = torch.nn.functional.pad(ids, (0, 3), value=model.config.pad_token_id)
                beside = model(padded, attention_mask=(torch.arange(padded.shape[1]) < ids.shape[1])[None])
            assert alone == pytest.approx(read_at_end, abs=1e-5)
            assert alone == pytest.approx(beside.logits.item(), abs=1e-5)
            rewards.append(alone)
        dialogues = [rewards_of.Dialogue(messages[:1], pair[side], "here") for side in ("chosen", "rejected")]
        np.testing.assert_allclose(scorers.score(scorer, dialogues), rewards, atol=1e-5)
        loss.append(-torch.nn.functional.logsigmoid(torch.tensor(rewards[0] - rewards[1])).item())
    assert metrics["eval_loss"] == pytest.approx(sum(loss) / len(loss), abs=1e-4)


def test_adapters_of_a_published_model_train_in_bfloat16(tmp_path):
    """Its products need autocast, before the first step too."""
    small_model.make_model(tmp_path / "start", dtype="bfloat16")
    for name, pairs in (("train", PAIRS[:8]), ("test", PAIRS[24:])):
        files.write_jsonl(tmp_path / f"{name}.jsonl", pairs)
    data = {"train_data": tmp_path / "train.jsonl", "eval_data": tmp_path / "test.jsonl", "columns": COLUMNS}
    settings = {"dtype": "bfloat16", "peft": small_model.LORA, "max_length": 64}
    reward_model.main(small_model.flags(tmp_path / "out", model=tmp_path / "start", **data, **settings))
    assert files.read_json(tmp_path / "out/metrics.json")["eval_loss"] > 0

"""KTO for real on a small Llama: the rows that it learns from, and that it learns."""

import os
import signal

import pytest
import small_model
from hypothesis import given, settings
from hypothesis import strategies as st

from prefline import files
from prefline.data import tables
from prefline.errors import InputError
from prefline.provenance import manifest
from prefline.text import chat
from prefline.training import loop
from scripts.train import train_kto

TOKENIZER = small_model.make_tokenizer()
KTO = {"beta": 0.5, "desirable_weight": 1.0, "undesirable_weight": 1.0, "global_batch_size": 8}
TRAINING = {"per_device_train_batch_size": 8, "num_train_epochs": 4, "learning_rate": 3e-3, "save_steps": 2}


def pair(number, split):
    messages = [{"role": "user", "content": f"Say {number}!"}]
    answers = (f"It is {number}.", "I would rather not say.")
    (prompt, chosen), (_, rejected) = (
        chat.prompt_and_completion_ids(TOKENIZER, messages, answer) for answer in answers
    )
    ids = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    return {"prompt_id": f"p{number}", "split": split, **ids}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = tmp_path_factory.mktemp("kto")
    small_model.make_model(world / "sft", TOKENIZER, initializer_range=0.2)
    manifest.write(world / "sft.json", world / "sft", "train_sft", {}, [])
    rows = [pair(number, "test" if number % 5 == 4 else "train") for number in range(20)]
    tables.write(world / "tokenized.parquet", rows, tables.TOKENIZED)
    return world


def train(world, out, **changed):
    start = {"model": world / "sft", "reference": world / "sft", "tokenized": world / "tokenized.parquet"}
    train_kto.main(small_model.flags(out, **start | KTO | TRAINING | changed))
    return small_model.results(out)


def test_a_policy_learns_what_is_desirable(world, tmp_path):
    _, metrics, log = train(world, tmp_path)
    assert files.read_json(tmp_path / "model/config.json")["use_cache"] is True
    assert metrics["eval_loss_before"] == pytest.approx(0.5, abs=1e-5), "the sigmoid of 0"
    assert log[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert metrics["eval_loss"] < 0.4
    assert metrics["eval_rewards/margins"] > 1
    assert metrics["train_steps"] == len(log) == 4 * 4, "16 pairs are 32 completions"
    assert files.read_json(tmp_path / "model/generation_config.json")["eos_token_id"] == [4, 1]


def test_dropout_of_attentions_is_off_and_comes_back(world, tmp_path):
    small_model.make_model(tmp_path / "sft", TOKENIZER, attention_dropout=0.5)
    manifest.write(tmp_path / "sft.json", tmp_path / "sft", "train_sft", {}, [])
    start = {"model": tmp_path / "sft", "reference": tmp_path / "sft", "num_train_epochs": 1}
    _, _, log = train(world, tmp_path, **start)
    assert log[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert files.read_json(tmp_path / "model/config.json")["attention_dropout"] == 0.5


def test_held_out_completions_are_looked_at_meanwhile(world, tmp_path):
    """The training is the same, and what is saved is what had the lowest loss."""
    _, wanted_metrics, wanted_log = train(world, tmp_path / "unseen")
    _, metrics, log = train(world, tmp_path / "seen", eval_steps=3, checkpoint="best")
    assert [row["step"] for row in log if "eval_loss" in row] == [3, 6, 9, 12, 15, 16]
    assert [row["loss"] for row in log] == [row["loss"] for row in wanted_log]
    losses = {row["step"]: row["eval_loss"] for row in log if "eval_loss" in row}
    assert metrics["saved_step"] == metrics["best_step"] == min(losses, key=losses.get) < 16
    assert metrics["eval_loss"] == pytest.approx(min(losses.values()), rel=1e-4)
    assert metrics["eval_loss"] < wanted_metrics["eval_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("peft", [small_model.LORA, small_model.QLORA], ids=["lora", "qlora"])
def test_adapters_learn_it_too_and_are_merged(world, tmp_path, peft):
    """Held to the reference itself, not to the weights beneath the adapters, which may be rounded."""
    more = {"num_train_epochs": 8, "learning_rate": 1e-2}
    weights, metrics, _ = train(world, tmp_path, peft=peft, **more)
    assert all("lora_" in name for name in weights)
    apart = abs(metrics["eval_loss_before"] - 0.5)
    assert apart < 1e-5 if "quantization" not in peft else apart > 0.01
    assert metrics["eval_rewards/margins"] > 1
    way = "quantized" if "quantization" in peft else "original"
    found = small_model.merge(tmp_path, world / "sft", way)
    assert found["sequences"] == 8 and found[way]["mean_token"] < 1e-4


@pytest.mark.slow
def test_an_interrupted_training_ends_as_an_undisturbed_one(world, tmp_path, monkeypatch):
    from transformers import TrainerCallback

    class Terminates(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    def terminated(kto, *args):
        kto.add_callback(Terminates())
        return fit(kto, *args)

    flags = {"num_train_epochs": 2, "save_steps": 3}
    wanted, _, wanted_log = train(world, tmp_path / "whole", **flags)
    fit = loop.fit
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(loop, "fit", terminated)
        train(world, tmp_path / "cut", **flags)
    weights, _, log = train(world, tmp_path / "cut", **flags)
    assert [row["loss"] for row in log] == [row["loss"] for row in wanted_log]
    assert all((weights[name] == wanted[name]).all() for name in wanted)


IDS = st.lists(st.integers(5, 60), min_size=1, max_size=6)
PAIRS = st.lists(
    st.fixed_dictionaries(
        {
            **{"prompt_ids": IDS, "chosen_ids": IDS, "rejected_ids": IDS},
            **{"prompt_id": st.uuids().map(str), "split": st.sampled_from(["train", "test"])},
        }
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda pair: pair["prompt_id"],
)


@settings(max_examples=50)
@given(PAIRS, st.randoms())
def test_every_completion_is_a_row_with_the_ids_of_its_pair(pairs, random):
    for split in {pair["split"] for pair in pairs}:
        rows, names = train_kto.unpaired(pairs, split, seed=1)
        wanted = {
            f"prompt_id {pair['prompt_id']} ({side})": (
                pair["prompt_ids"],
                pair[f"{side}_ids"],
                side == "chosen",
            )
            for pair in pairs
            if pair["split"] == split
            for side in ("chosen", "rejected")
        }
        found = [(row["prompt_ids"], row["completion_ids"], row["label"]) for row in rows]
        assert dict(zip(names, found, strict=True)) == wanted
        shuffled = random.sample(pairs, len(pairs))
        assert train_kto.unpaired(shuffled, split, seed=1) == (rows, names), "whatever order they come in"
        if len({tuple(row["prompt_ids"]) for row in rows}) == 1:
            with pytest.raises(InputError, match="all rows of a split have the same prompt; raise prompts"):
                train_kto.with_neighbors(rows)
            continue
        for row in train_kto.with_neighbors(rows):
            whose = [
                other["prompt_ids"] for other in rows if other["completion_ids"] == row["KL_completion_ids"]
            ]
            assert any(prompt != row["prompt_ids"] for prompt in whose)


def test_z_is_of_completions_of_other_prompts():
    """The nearest before: also with `data: all`, which has a prompt's pairs of every iteration."""
    rows = [{"prompt_ids": [prompt], "completion_ids": [number]} for number, prompt in enumerate("aabbbca")]
    found = [row["KL_completion_ids"][0] for row in train_kto.with_neighbors(rows)]
    assert found == [5, 5, 1, 1, 1, 4, 5]


def test_the_last_batch_is_filled_with_the_first_rows():
    assert train_kto.filled([1, 2, 3], 2) == [1, 2, 3, 1]
    assert train_kto.filled([1, 2], 2) == [1, 2]
    assert train_kto.filled([1, 2], 7) == [1, 2, 1, 2, 1, 2, 1]


def test_a_completion_with_a_label_is_one_row():
    pairs = [pair(0, "train") | {"rejected_ids": None}, pair(1, "train") | {"chosen_ids": None}]
    rows, names = train_kto.unpaired(pairs, "train", seed=1)
    found = sorted((row["label"], row["completion_ids"], name) for row, name in zip(rows, names, strict=True))
    assert found == [
        (False, pairs[1]["rejected_ids"], "prompt_id p1 (rejected)"),
        (True, pairs[0]["chosen_ids"], "prompt_id p0 (chosen)"),
    ]


def test_trl_trains_on_these_ids_with_one_bos_and_one_end():
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

    rows, _ = train_kto.unpaired([pair(number, "train") for number in range(3)], "train", seed=1)
    batch = DataCollatorForUnpairedPreference(TOKENIZER.pad_token_id)(train_kto.with_neighbors(rows))
    for row, ids, real, learnt in zip(
        rows,
        *(batch[name].tolist() for name in ("input_ids", "attention_mask", "completion_mask")),
        strict=True,
    ):
        ids, learnt = ids[: sum(real)], learnt[: sum(real)]
        assert ids == row["prompt_ids"] + row["completion_ids"]
        assert ids.count(TOKENIZER.bos_token_id) == 1
        said = [token for token, counts in zip(ids, learnt, strict=True) if counts]
        assert said == row["completion_ids"]
        assert said.count(TOKENIZER.eos_token_id) == 1
        assert said[-1] == TOKENIZER.eos_token_id


def test_bad_input_is_one_sentence(world, tmp_path):
    with pytest.raises(InputError, match="not in 2 pieces of 4: raise the resource"):
        train(world, tmp_path, per_device_train_batch_size=4)
    bad = tmp_path / "bad.parquet"
    for name, ids, said in (("chosen_ids", [], "empty"), ("rejected_ids", [5, 4000], "the id 4000")):
        tables.write(bad, [pair(1, "train") | {name: ids}, pair(2, "test")], tables.TOKENIZED)
        with pytest.raises(InputError, match=f"prompt_id p1: {name} .* {said}"):
            train(world, tmp_path, tokenized=bad)
    with pytest.raises(InputError, match="no test pairs among its 1"):
        train_kto.unpaired([pair(1, "train")], "test", seed=1)
    with pytest.raises(
        InputError, match=r"became nan at .* in the batch of prompt_id p\d+ .(chosen|rejected)"
    ):
        train(world, tmp_path, learning_rate=1e30)

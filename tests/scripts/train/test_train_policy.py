"""Policy training on a small Llama: what it starts at, that cuts of a batch do not matter, TRL's numbers."""

import math
import re
import shutil
import signal
from pathlib import Path

import pytest
import small_model
import torch
from policy_training import (
    VOCABULARY,
    distance,
    make_world,
    train,
    training_flags,
)
from safetensors.torch import load_file
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from prefline import files
from prefline.config import schema
from prefline.data import tables
from prefline.errors import InputError
from prefline.provenance import manifest
from prefline.training import packing
from prefline.training.preference_trainer import PreferenceTrainer


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    return train(world, tmp_path_factory.mktemp("undisturbed"))


def test_dpo_starts_at_ln_2_and_learns(undisturbed):
    _, metrics, log = undisturbed
    assert metrics["eval_loss_before"] == pytest.approx(math.log(2), abs=1e-6)
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["eval_logps/chosen_before"] < 0
    assert metrics["eval_rewards/margins_before"] == pytest.approx(0, abs=1e-5)
    assert log[-1]["rewards/margins"] > 0.1
    assert log[-1]["rewards/accuracies"] == 1.0
    assert len(log) == 2 * 3, "20 pairs in batches of 8, the last one of 4, twice"


def test_rebel_starts_at_the_mean_squared_reward_difference(world, tmp_path):
    _, metrics, log = train(world, tmp_path, loss_type="rebel", max_grad_norm=0)
    rows = tables.read_rows(world / "tokenized.parquet", tables.TOKENIZED)
    wanted = [(2.0 * (r["chosen_reward"] - r["rejected_reward"])) ** 2 for r in rows if r["split"] == "test"]
    assert metrics["eval_loss_before"] == pytest.approx(sum(wanted) / len(wanted), rel=1e-5)
    assert log[-1]["loss"] < log[0]["loss"]


@pytest.mark.parametrize("per_device", [pytest.param(1, marks=pytest.mark.slow), 2, 4])
def test_how_a_batch_is_cut_does_not_matter(world, undisturbed, tmp_path, per_device):
    weights, metrics, log = train(world, tmp_path, per_device_train_batch_size=per_device)
    wanted, wanted_metrics, wanted_log = undisturbed
    assert distance(weights, wanted) < 1e-5
    for row, wanted_row in zip(log, wanted_log, strict=True):
        names = set(row) - {"epoch"}  # in which Trainer counts batches
        if row["step"] <= 2:
            names -= {"rewards/accuracies"}  # the signs of rounding errors: nothing was learned yet
        assert {name: row[name] for name in names} == pytest.approx(
            {name: wanted_row[name] for name in names}, rel=1e-5, abs=1e-5
        )
    for name in ("eval_loss", "eval_rewards/margins", "eval_rewards/accuracies", "train_tokens"):
        assert metrics[name] == pytest.approx(wanted_metrics[name], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "per_device", "loss_type", "parallel"),
    [
        (4, 2, "sigmoid", "ddp"),
        pytest.param(4, 1, "sigmoid", "ddp", marks=pytest.mark.long),
        pytest.param(8, 4, "sigmoid", "ddp", marks=pytest.mark.long),
        (8, 4, "sft", "ddp"),
        (8, 4, "sigmoid", "fsdp2"),
        pytest.param(8, 4, "sigmoid", "zero3", marks=[pytest.mark.long, small_model.ZERO3]),
    ],
)
def test_two_processes_train_as_one_does(world, tmp_path, batch, per_device, loss_type, parallel):
    """In the last cases, the last 4 of the 20 pairs are one device's; the other has none of its own."""
    sizes = {
        "global_batch_size": batch,
        "per_device_train_batch_size": per_device,
        "loss_type": loss_type,
    }
    wanted, wanted_metrics, wanted_log = train(world, tmp_path / "one", **sizes)
    flags = training_flags(world, tmp_path / "two", **sizes)
    said = small_model.said_by(small_model.launch("train_policy", flags, parallel=parallel))
    assert said.count("step 1/") == 1, "one of them speaks"
    weights, metrics, log = small_model.results(tmp_path / "two")
    assert distance(weights, wanted) < 1e-5
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted_log], abs=1e-5)
    assert metrics["eval_loss"] == pytest.approx(wanted_metrics["eval_loss"], abs=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
    ("peft", "parallel"),
    [(small_model.LORA, "ddp"), (small_model.LORA, "fsdp2"), (small_model.QLORA, "ddp")],
    ids=["lora-ddp", "lora-fsdp2", "qlora-ddp"],
)
def test_two_processes_train_adapters_as_one_does(world, tmp_path, peft, parallel):
    changes = {"peft": peft | {"lora_dropout": 0.0}, "per_device_train_batch_size": 2, "learning_rate": 1e-2}
    wanted, wanted_metrics, _ = train(world, tmp_path / "one", **changes)
    flags = training_flags(world, tmp_path / "two", **changes)
    small_model.said_by(small_model.launch("train_policy", flags, parallel=parallel))
    weights, metrics, log = small_model.results(tmp_path / "two")
    assert distance(weights, wanted) < 1e-5
    assert metrics["eval_loss"] == pytest.approx(wanted_metrics["eval_loss"], abs=1e-5)
    assert log[-1]["loss"] < log[0]["loss"] - 0.02


@pytest.mark.slow
def test_two_processes_that_were_stopped_end_where_one_does(world, tmp_path):
    """The last 2 of the 20 pairs do not fill a step's batches: a resumed epoch must know it, too."""
    sizes = {"global_batch_size": 6, "per_device_train_batch_size": 3, "num_train_epochs": 9}
    wanted, _, wanted_log = train(world, tmp_path / "one", **sizes)
    flags = training_flags(world, tmp_path / "two", **sizes)
    process = small_model.launch("train_policy", flags)
    for line in process.stdout:
        if line.startswith("step 1/"):
            process.send_signal(signal.SIGTERM)
    assert process.wait() != 0
    said = small_model.said_by(small_model.launch("train_policy", flags))
    assert int(re.search(r"resuming after step (\d+)", said)[1]) % 4, "stopped at an epoch's end by chance"
    weights, _, log = small_model.results(tmp_path / "two")
    assert distance(weights, wanted) < 1e-5
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted_log], abs=1e-5)


def test_gradient_checkpointing_does_not_matter(world, undisturbed, tmp_path):
    assert distance(train(world, tmp_path, gradient_checkpointing=True)[0], undisturbed[0]) < 1e-6
    assert files.read_json(tmp_path / "model/config.json")["use_cache"] is True


@pytest.mark.parametrize("per_device", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_nor_does_it_where_tokens_are_averaged(world, tmp_path, per_device):
    """sft and what is per token know the lengths of the whole global batch, and of the whole held-out set."""
    losses = {"loss_type": '["ipo", "sft"]', "loss_weights": "[0.1, 1.0]", "num_train_epochs": 1}
    wanted, wanted_metrics, wanted_log = train(world, tmp_path / "whole", **losses)
    weights, metrics, log = train(world, tmp_path / "cut", per_device_train_batch_size=per_device, **losses)
    assert distance(weights, wanted) < 1e-5
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted_log], rel=1e-5)
    assert metrics["eval_loss"] == pytest.approx(wanted_metrics["eval_loss"], rel=1e-5)


def test_a_loss_that_sorts_the_batch_must_have_it_whole(world, tmp_path):
    _, metrics, log = train(world, tmp_path, loss_type="aot")
    assert metrics["eval_loss_before"] == pytest.approx(math.log(2), abs=1e-5)
    assert log[-1]["loss"] < log[0]["loss"]
    with pytest.raises(InputError, match=r"aot is one of the whole batch of 8 pairs.* not in 4 pieces"):
        train(world, tmp_path / "cut", loss_type="aot", per_device_train_batch_size=2)


def test_batches_that_devices_cannot_share_are_refused_before_a_model_is_loaded(world, tmp_path, monkeypatch):
    monkeypatch.setattr("prefline.training.weights.load", lambda *_: pytest.fail("it was loaded"))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="global_batch_size 8 cannot be shared by 3 devices"):
        train(world, tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"aot is one of the whole batch of 8 pairs.* not in 2 pieces"):
        train(world, tmp_path, loss_type="aot")


def half_alone(module, query, key, value, attention_mask, **kwargs):
    """As flash-attn: refuses float32, of which autocast leaves queries and keys, but no values."""
    if value.dtype == torch.float32:
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
    query, key = query.to(value.dtype), key.to(value.dtype)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def test_an_attention_that_takes_half_precision_alone(world, tmp_path, monkeypatch):
    """Weights are float32, and products are bfloat16 from the first trial on."""
    keys = schema.whole()["$defs"]["optimization"]["properties"]
    monkeypatch.setitem(keys["attn_implementation"], "enum", ["half_alone"])
    AttentionInterface.register("half_alone", half_alone)
    AttentionMaskInterface.register("half_alone", AttentionMaskInterface()["sdpa"])
    _, metrics, log = train(world, tmp_path, dtype="bfloat16", attn_implementation="half_alone")
    assert metrics["eval_loss_before"] == pytest.approx(math.log(2), abs=0.1)
    assert log[-1]["rewards/margins"] > 0.05


def test_a_kernel_that_does_not_run_is_known_before_the_first_step(world, tmp_path, monkeypatch, capsys):
    """It is asked for half precision, as in training, though the weights are float32."""

    def older(query, key, value, *lengths, scale):
        pytest.fail("it takes fewer arguments than it is given")

    monkeypatch.setattr(packing, "_has_flash", lambda device: True)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", older)
    train(world, tmp_path, dtype="bfloat16", num_train_epochs=0.4)
    said = capsys.readouterr().out
    assert "LlamaForCausalLM: sequences are padded, not packed: TypeError: " in said
    assert said.count("not packed") == 1


def test_dropout_of_any_kind_is_no_part_of_a_log_ratio(world, tmp_path):
    """A model's own; what is saved still says which it has."""
    shutil.copytree(world / "sft", tmp_path / "sft")
    config = files.read_json(tmp_path / "sft/config.json") | {"attention_dropout": 0.5}
    files.write_json(tmp_path / "sft/config.json", config)
    manifest.write(tmp_path / "sft.json", tmp_path / "sft", "train_sft", {}, [])
    _, _, log = train(world, tmp_path / "out", model=tmp_path / "sft", num_train_epochs=0.4)
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert files.read_json(tmp_path / "out/model/config.json")["attention_dropout"] == 0.5


def test_label_smoothing_and_beta_reach_the_loss(world, undisturbed, tmp_path):
    smooth = train(world, tmp_path, label_smoothing=0.3, num_train_epochs=1)[0]
    assert distance(smooth, undisturbed[0]) > 1e-5


def test_lora_trains_adapters_that_are_merged(world, tmp_path):
    peft = small_model.LORA | {"lora_dropout": 0.0}
    _, metrics, _ = train(world, tmp_path, peft=peft, learning_rate=1e-2)
    small_model.merge(tmp_path, world / "sft")
    weights = load_file(tmp_path / "merged/model.safetensors")
    start = load_file(world / "sft/model.safetensors")
    assert metrics["eval_loss_before"] == pytest.approx(math.log(2), abs=1e-6)
    assert torch.equal(weights["model.embed_tokens.weight"], start["model.embed_tokens.weight"])
    assert distance(weights, start) > 1e-4


@pytest.mark.slow
def test_qlora_learns_in_packed_rows_and_goes_on_where_it_was(world, tmp_path, monkeypatch, capsys):
    """The reference was not quantized, so the loss begins beside ln 2."""
    settings = {"peft": small_model.QLORA, "learning_rate": 1e-2, "gradient_checkpointing": True}
    wanted, metrics, log = train(world, tmp_path / "one", **settings)
    assert 0 < abs(metrics["eval_loss_before"] - math.log(2)) < 0.2
    assert log[-1]["rewards/margins"] > log[0]["rewards/margins"] + 0.1
    apart = small_model.merge(tmp_path / "one", world / "sft", "quantized")
    assert apart["quantized"]["max_token"] < 1e-4 < 1e-3 < apart["original"]["mean_token"]

    step = PreferenceTrainer.training_step

    def stopped(self, *args, **kwargs):
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(PreferenceTrainer, "training_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(world, tmp_path / "two", **settings)
    capsys.readouterr()
    weights, *_ = train(world, tmp_path / "two", **settings)
    assert "resuming after step 2" in capsys.readouterr().out
    assert distance(weights, wanted) == 0


def test_the_manifest_names_every_parent(world, undisturbed, tmp_path):
    train(world, tmp_path, num_train_epochs=1)
    lineage = files.read_json(tmp_path / "model.json")["lineage"]
    assert {Path(parent).name for parent in lineage["parents"]} == {
        "sft.json",
        "tokenized.parquet",
        "ref_logps_0_2.parquet",
        "ref_logps_1_2.parquet",
    }


def test_a_policy_with_fewer_tokens_than_its_reference(world, tmp_path, monkeypatch):
    monkeypatch.setattr("prefline.training.weights.load", lambda *_: pytest.fail("it was loaded"))
    small_model.make_model(tmp_path / "small", vocab_size=VOCABULARY - 2)
    with pytest.raises(
        InputError, match=rf"tokenized\.parquet, row \d+, .* vocabulary has {VOCABULARY - 2} tokens"
    ):
        train(world, tmp_path / "out", model=tmp_path / "small")

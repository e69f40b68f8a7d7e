"""Policy training on a small Llama: what it starts at, that cuts of a batch do not matter, TRL's numbers."""

import math
import os
import random
import re
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
import small_model
import torch
from safetensors.torch import load_file, save_file
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from prefline import files
from prefline.config import schema
from prefline.data import tables
from prefline.errors import InputError
from prefline.provenance import manifest
from prefline.training import losses, packing, ref_logps, trainer
from prefline.training.preference_trainer import PreferenceTrainer
from scripts.logps import compute_ref_logps
from scripts.train import train_policy

VOCABULARY = 61
TRAINING = {
    "temperature": 1.0,
    "loss_type": "sigmoid",
    "beta": 0.1,
    "label_smoothing": 0.0,
    "eta": 2.0,
    "reward_scaling": "none",
    "learning_rate": 1e-3,
    "num_train_epochs": 2,
    "global_batch_size": 8,
    "per_device_train_batch_size": 8,
    "save_steps": 2,
}


def example(number, split):
    draw = random.Random(number)

    def ids():
        return [draw.randrange(VOCABULARY) for _ in range(draw.randint(1, 12))]

    return {
        "prompt_id": f"p{number}",
        "split": split,
        "prompt_ids": ids(),
        "chosen_ids": ids(),
        "rejected_ids": ids(),
        "chosen_reward": draw.random() + 1,
        "rejected_reward": draw.random(),
    }


def reference_flags(world, part=0, num_shards=1, **changed):
    flags = {
        "tokenized": world / "tokenized.parquet",
        "model": world / "sft",
        "part": f"{part:04d}",
        "num_shards": num_shards,
        "temperature": 1.0,
        "batch_tokens": 128,
        "dtype": "float32",
        "journal": world / secrets.token_hex(4),  # nothing is found from an earlier run
        "out": world / f"ref_logps_{part}_{num_shards}.parquet",
    } | changed
    return [word for key, value in flags.items() for word in (f"--{key.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A start policy, 20 train and 4 test pairs, and their reference log-probabilities in two parts."""
    world = tmp_path_factory.mktemp("world")
    small_model.make_model(world / "sft", vocab_size=VOCABULARY, initializer_range=0.2)
    manifest.write(world / "sft.json", world / "sft", "train_sft", {}, [])
    rows = [example(number, "test" if number % 6 == 5 else "train") for number in range(24)]
    tables.write(world / "tokenized.parquet", rows, tables.TOKENIZED)
    for part in range(2):
        compute_ref_logps.main(reference_flags(world, part, 2))
    return world


def training_flags(world, out, **changed):
    data = {
        "model": world / "sft",
        "tokenized": world / "tokenized.parquet",
        "ref_logps": [world / f"ref_logps_{part}_2.parquet" for part in range(2)],
        "reference": world / "sft.json",
        "scale_by": [],
    }
    return small_model.flags(out, **data | TRAINING | changed)


def train(world, out, **changed):
    """(weights, metrics, rows of log.csv) of a training."""
    train_policy.main(training_flags(world, out, **changed))
    return small_model.results(out)


def distance(one, other):
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


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


@pytest.mark.parametrize("per_device", [1, 2, 4])
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
    assert int(re.search(r"going on after step (\d+)", said)[1]) % 4, "stopped at an epoch's end by chance"
    weights, _, log = small_model.results(tmp_path / "two")
    assert distance(weights, wanted) < 1e-5
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted_log], abs=1e-5)


def test_gradient_checkpointing_does_not_matter(world, undisturbed, tmp_path):
    assert distance(train(world, tmp_path, gradient_checkpointing=True)[0], undisturbed[0]) < 1e-6
    assert files.read_json(tmp_path / "model/config.json")["use_cache"] is True


@pytest.mark.parametrize("per_device", [1, 4])
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
    assert "going on after step 2" in capsys.readouterr().out
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


@pytest.mark.parametrize(("before", "after"), [(8, 2), (2, 4)])
def test_stopped_it_goes_on_with_other_numbers_of_rows_at_once(
    world, undisturbed, tmp_path, monkeypatch, capsys, before, after
):
    """As after running out of memory, in the middle of an epoch."""
    step = PreferenceTrainer.training_step

    def stopped(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(PreferenceTrainer, "training_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(world, tmp_path, per_device_train_batch_size=before)
    capsys.readouterr()
    weights, metrics, log = train(world, tmp_path, per_device_train_batch_size=after)
    assert "going on after step 4 of 6" in capsys.readouterr().out
    wanted, wanted_metrics, wanted_log = undisturbed
    assert distance(weights, wanted) < 1e-5
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted_log], rel=1e-5)
    assert metrics["train_tokens"] == wanted_metrics["train_tokens"]


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_killed_training_ends_where_an_undisturbed_one_does(world, undisturbed, tmp_path, number):
    command = [sys.executable, "-m", "scripts.train.train_policy", *training_flags(world, tmp_path)]
    # Slow the steps down, so that the signal arrives in the middle.
    slow = "import prefline.training.losses as l, time; f = l.total; "
    slow += "l.total = lambda *a: (time.sleep(0.3), f(*a))[1]; "
    slow += "from scripts.train import train_policy as t; from prefline import errors; errors.run(t.main)"
    process = subprocess.Popen([sys.executable, "-c", slow, *command[3:]], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("work/*/checkpoint-2/COMPLETE")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, number)
    process.communicate()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert not (tmp_path / "model").exists()

    resumed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on after step" in resumed.stdout
    weights, _, log = small_model.results(tmp_path)
    assert distance(weights, undisturbed[0]) == 0
    assert log == undisturbed[2]
    assert not list(tmp_path.glob("work/*/checkpoint-*"))


WITHOUT_TORCH = """
import sys
from scripts.train import train_policy
train_policy.main(sys.argv[1:])
assert not {"torch", "transformers"} & set(sys.modules)
"""


def artifacts(out):
    """The bytes of the model, its manifest, metrics.json and log.csv."""
    paths = [path for path in out.rglob("*") if path.is_file() and "work" not in path.parts]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def test_there_and_back_trains_twice(world, tmp_path, capsys):
    out = tmp_path / "out"
    train(world, out)
    first = artifacts(out)
    assert {"model/model.safetensors", "model.json", "metrics.json", "log.csv"} <= first.keys()
    train(world, out, beta=0.2)
    assert artifacts(out)["model/model.safetensors"] != first["model/model.safetensors"]
    shutil.rmtree(out / "model")  # as Snakemake does before it starts a job
    command = [sys.executable, "-c", WITHOUT_TORCH, *training_flags(world, out)]
    back = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "nothing to train: this very training was done before" in back.stdout
    assert artifacts(out) == first

    # Edited in place, the artifact takes the kept file with it.
    with open(out / "model/model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    capsys.readouterr()
    train(world, out)
    assert "model.safetensors: is not what was kept; training again" in capsys.readouterr().out
    assert artifacts(out)["model/model.safetensors"] == first["model/model.safetensors"]
    assert "nothing to train" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_loss_that_is_not_finite_names_the_pairs(world, tmp_path):
    with pytest.raises(InputError, match=r"held-out pairs is inf after 0 steps, first of prompt_id p5;"):
        train(world, tmp_path, loss_type="rebel", eta=1e30)
    with pytest.raises(InputError, match=r"became (nan|inf) at step \d of 6 .* prompt_id p\d+, prompt_id p"):
        train(world, tmp_path, learning_rate=1e30)


class TestJoin:
    """Log-probabilities are those of these ids, under this reference, at this temperature; or refused."""

    def files(self, world):
        return world / "tokenized.parquet", [world / f"ref_logps_{part}_2.parquet" for part in range(2)]

    def join(self, world, tokenized=None, parts=None, model="sft", temperature=1.0):
        usual = self.files(world)
        contents = manifest.contents(world / model)
        return ref_logps.joined(tokenized or usual[0], parts or usual[1], contents, temperature)

    def changed(self, world, tmp_path, **ids):
        """The tokenized file with other ids in row 7."""
        rows = tables.read_rows(self.files(world)[0], tables.TOKENIZED)
        rows[7] |= ids
        tables.write(tmp_path / "tokenized.parquet", rows, tables.TOKENIZED)
        return tmp_path / "tokenized.parquet"

    def test_rows_get_their_log_probabilities(self, world):
        parts = tables.read(self.files(world)[1], tables.REF_LOGPS)
        assert self.join(world)["ref_chosen_logps"].to_pylist() == parts["ref_chosen_logps"].to_pylist()

    def test_rows_in_other_chunks_are_the_same_rows(self, world):
        table = tables.read(self.files(world)[0], tables.TOKENIZED)
        whole = ref_logps.ids_hash(table.slice(3, 9))
        assert ref_logps.ids_hash(pa.concat_tables([table.slice(3, 4), table.slice(7, 5)])) == whole
        assert ref_logps.ids_hash(table.slice(3, 8)) != whole

    def test_a_missing_part(self, world):
        with pytest.raises(InputError, match="do not belong together"):
            self.join(world, parts=self.files(world)[1][:1])

    def test_parts_in_another_order(self, world):
        with pytest.raises(InputError, match="row 0 is prompt_id p0 in --tokenized and p12"):
            self.join(world, parts=self.files(world)[1][::-1])

    def test_other_numbers_of_tokens(self, world, tmp_path):
        with pytest.raises(InputError, match=r"row 7 .*token counts"):
            self.join(world, self.changed(world, tmp_path, rejected_ids=[1] * 13))

    @pytest.mark.parametrize("name", ref_logps.IDS)
    def test_other_ids_of_as_many_tokens(self, world, tmp_path, name):
        ids = example(7, "train")[name]
        other = self.changed(world, tmp_path, **{name: [*ids[:-1], (ids[-1] + 1) % VOCABULARY]})
        with pytest.raises(InputError, match=r"ref_logps_0_2\.parquet holds .* of other ids than --tok"):
            self.join(world, other)

    def test_another_reference(self, world, tmp_path):
        small_model.make_model(tmp_path / "other", vocab_size=VOCABULARY, initializer_range=0.3)
        with pytest.raises(InputError, match=r"ref_logps_0_2\.parquet holds .* under another model than"):
            self.join(world, model=tmp_path / "other")

    def test_another_temperature(self, world):
        with pytest.raises(InputError, match=r"at temperature 1, but training is at 0\.7"):
            self.join(world, temperature=0.7)

    def test_a_file_that_does_not_say(self, world, tmp_path):
        parts = self.files(world)[1]
        rows = tables.read_rows(parts[0], tables.REF_LOGPS)
        tables.write(tmp_path / "old.parquet", rows, tables.REF_LOGPS)
        with pytest.raises(InputError, match=r"old\.parquet does not say what .* make it again"):
            self.join(world, parts=[tmp_path / "old.parquet", parts[1]])

    def test_a_training_refuses_them(self, world, tmp_path):
        with pytest.raises(InputError, match=r"at temperature 1, but training is at 0\.5"):
            train(world, tmp_path, temperature=0.5)


def pairs_with(**columns):
    """Train pairs p0, p1, … with those columns, one value for each."""
    rows = [example(number, "train") for number in range(len(next(iter(columns.values()))))]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return pa.Table.from_pylist(rows, schema=tables.TOKENIZED)


class TestCheckPairs:
    @pytest.mark.parametrize("bad", [None, math.nan, math.inf])
    def test_rebel_needs_rewards(self, bad):
        pairs = pairs_with(rejected_reward=[0.0, 0.0, bad])
        train_policy.check_pairs(pairs, "sigmoid")
        with pytest.raises(
            InputError, match=r"row 2, prompt_id p2: rejected_reward is .*; take loss_type sig"
        ):
            train_policy.check_pairs(pairs, ["sft", "rebel"])

    def test_sppo_needs_win_probabilities(self):
        pairs = pairs_with(chosen_win_probability=[0.9, 0.8], rejected_win_probability=[0.1, None])
        train_policy.check_pairs(pairs, "sppo_hard")
        with pytest.raises(InputError, match=r"p1: rejected_win_probability is .*; take loss_type sppo_hard"):
            train_policy.check_pairs(pairs, "sppo")

    def test_a_pair_of_equal_completions(self):
        ids = [[1, 2], [3, 4], [5, 6, 7]]
        train_policy.check_pairs(pairs_with(chosen_ids=ids, rejected_ids=[[1, 3], [3], [5, 6, 8]]), "sigmoid")
        with pytest.raises(InputError, match="row 2, prompt_id p2: chosen and rejected are the same tokens"):
            train_policy.check_pairs(pairs_with(chosen_ids=ids, rejected_ids=[[2], [4, 4], [5, 6, 7]]), "sft")


class TestRewards:
    def test_rewards_that_are_all_equal(self):
        pairs = pairs_with(chosen_reward=[2.0, 3.0], rejected_reward=[2.0, 3.0])
        for scaling in ("none", "z_score"):
            with pytest.raises(InputError, match=r"each of the 2 train pairs, beginning with prompt_id p0"):
                train_policy.scale_rewards(pairs, scaling, pairs)

    def test_z_score_has_the_train_pairs_mean_and_deviation(self):
        pairs = pairs_with(
            chosen_reward=[4.0, 6.0, 104.0], rejected_reward=[2.0, 0.0, 3.0], split=["train", "train", "test"]
        )
        assert train_policy.scale_rewards(pairs, "none", pairs) is pairs
        scaled = train_policy.scale_rewards(pairs, "z_score", pairs)
        deviation = math.sqrt((1 + 9 + 1 + 9) / 4)
        assert scaled["chosen_reward"].to_pylist() == pytest.approx(
            [(reward - 3) / deviation for reward in (4, 6, 104)]
        )
        assert scaled["rejected_reward"].to_pylist() == pytest.approx(
            [(reward - 3) / deviation for reward in (2, 0, 3)]
        )
        assert scaled.drop(["chosen_reward", "rejected_reward"]) == pairs.drop(
            ["chosen_reward", "rejected_reward"]
        )

    def test_by_run_has_those_of_the_first_iteration(self):
        first = pairs_with(chosen_reward=[4.0, 6.0], rejected_reward=[2.0, 0.0])
        later = pairs_with(chosen_reward=[6.0, 6.5, 7.0], rejected_reward=[5.5, 6.0, 5.0])
        scaled = train_policy.scale_rewards(later, "by_run", first)
        deviation = math.sqrt((1 + 9 + 1 + 9) / 4)
        assert scaled["rejected_reward"].to_pylist() == pytest.approx(
            [(reward - 3) / deviation for reward in (5.5, 6.0, 5.0)]
        )
        own = train_policy.scale_rewards(first, "by_run", first)
        assert own == train_policy.scale_rewards(first, "z_score", later), "of the first both are the same"
        equal = pairs_with(chosen_reward=[2.0], rejected_reward=[2.0])
        with pytest.raises(InputError, match=r"--scale-by: the 2 rewards .* deviation 0.0, by which"):
            train_policy.scale_rewards(later, "by_run", equal)

    def test_scaling_reaches_the_loss(self, world, tmp_path):
        _, metrics, log = train(world, tmp_path, loss_type="rebel_paper", reward_scaling="z_score", eta=1.0)
        rows = tables.read_rows(world / "tokenized.parquet", tables.TOKENIZED)
        rewards = [(row["chosen_reward"], row["rejected_reward"]) for row in rows if row["split"] == "train"]
        deviation = statistics.pstdev(reward for pair in rewards for reward in pair)
        wanted = [((row["chosen_reward"] - row["rejected_reward"]) / deviation) ** 2 for row in rows]
        wanted = [loss for loss, row in zip(wanted, rows, strict=True) if row["split"] == "test"]
        assert metrics["eval_loss_before"] == pytest.approx(sum(wanted) / len(wanted), rel=1e-5)
        assert log[-1]["loss"] < log[0]["loss"]

    @pytest.mark.parametrize(
        ("eta", "said"),
        [
            (1.0, None),
            (
                1e6,
                r"5e\+05 nats apart where rejected has 4 tokens, out of reach: .*; eta 4 would ask for 0.5",
            ),
            (1e-3, "0.0005 nats apart where rejected has 4 tokens, next to nothing: .*; eta 4 would ask"),
        ],
    )
    def test_eta_out_of_reach(self, eta, said):
        pairs = pairs_with(
            chosen_reward=[0.5, 1.5, 9.0], rejected_reward=[0.25, 1.0, 0.0], rejected_ids=[[1] * 4] * 3
        )
        warning = train_policy.reach_warning(pairs, eta)
        assert warning is None if said is None else re.search(said, warning)

    def test_equal_rewards_do_not_hide_the_others(self):
        """As where they say right or wrong, and most pairs' are both the same."""
        pairs = pairs_with(chosen_reward=[1.0, 1.0, 0.0], rejected_reward=[1.0, 0.0, 0.0])
        assert "rewards' median difference 1, where they differ" in train_policy.reach_warning(pairs, 1e6)
        assert train_policy.reach_warning(pairs.slice(1), 2.0) is None

    def test_a_training_says_so(self, world, tmp_path, capsys):
        train(world, tmp_path, loss_type="rebel", eta=1e6, num_train_epochs=0.1)
        assert "warning: eta 1e+06 times" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"loss_type": "rebell"}, "there is no loss 'rebell'; did you mean 'rebel'?"),
        ({"loss_type": "exo_pair"}, "exo_pair is infinite where label_smoothing is 0"),
        (
            {"loss_type": '["sigmoid", "sft"]', "loss_weights": "[1]"},
            "loss_weights has 1 numbers for 2 losses",
        ),
    ],
    ids=str,
)
def test_losses_that_cannot_be(world, tmp_path, flags, sentence):
    with pytest.raises(InputError) as error:
        train(world, tmp_path, **flags)
    assert sentence in str(error.value)


@pytest.fixture
def own_loss(tmp_path):
    """The name of DPO's loss in a file of the user's, which takes a factor from another."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/helper.py").write_text("FACTOR = 1.0\n")
    (tmp_path / "mine/own.py").write_text(
        "from torch.nn.functional import logsigmoid\nfrom .helper import FACTOR\n\n\n"
        "def dpo(batch, beta, lam):\n    return -FACTOR * lam * logsigmoid(beta * batch.margins)\n\n\n"
        "def rewarded(batch, beta):\n    return beta * batch.margins * batch.chosen_reward\n"
    )
    return f"{tmp_path}/mine/own.py"


def test_a_loss_of_ones_own_trains_as_the_same_loss_here(world, undisturbed, tmp_path, own_loss):
    keys = {"loss_type": f"{own_loss}:dpo", "loss_arguments": '{"lam": 1.0}'}
    weights, _, log = train(world, tmp_path, **keys)
    assert distance(weights, undisturbed[0]) == 0
    assert [row["loss"] for row in log] == [row["loss"] for row in undisturbed[2]]
    params = files.read_json(tmp_path / "model.json")["lineage"]["params"]
    assert params["loss_type"] == keys["loss_type"] and params["loss_arguments"] == {"lam": 1.0}


def test_an_edit_of_a_module_that_ones_own_loss_imports_trains_again(world, tmp_path, own_loss):
    keys = {"loss_type": f"{own_loss}:dpo", "loss_arguments": '{"lam": 1.0}', "num_train_epochs": 0.4}

    def work_key():
        args = train_policy.parse(training_flags(world, tmp_path, **keys))
        return trainer.work_key(args, "scripts/train/train_policy.py", [], losses.own_files(args.loss_type))

    before = work_key()
    (tmp_path / "mine/helper.py").write_text("FACTOR = 1.0  # a remark\n")
    assert work_key() == before
    (tmp_path / "mine/helper.py").write_text("FACTOR = 2.0\n")
    assert work_key() != before


def test_a_loss_of_ones_own_is_tried_before_a_model_is_loaded(world, tmp_path, own_loss, monkeypatch):
    monkeypatch.setattr("prefline.training.trainer.load_model", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(InputError, match=r"own.py, line 6: TypeError"):
        train(world, tmp_path, loss_type=f"{own_loss}:dpo", loss_arguments='{"lam": []}')
    with pytest.raises(InputError, match="loss_arguments lacks 'lam'"):
        train(world, tmp_path, loss_type=f"{own_loss}:dpo", loss_arguments="null")
    with pytest.raises(InputError, match=r"chosen_reward is None, but loss_type .*own.py:rewarded needs it"):
        train_policy.check_pairs(
            pairs_with(chosen_reward=[1.0, None, 2.0]), f"{own_loss}:rewarded", {"beta": 0.1}
        )


def test_a_loss_without_its_hyperparameter(world, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(world, tmp_path, loss_type="discopop")
    assert "the loss discopop needs --discopop-tau" in capsys.readouterr().err


def test_a_split_without_pairs(world):
    pairs = tables.read(world / "tokenized.parquet", tables.TOKENIZED)
    with pytest.raises(InputError, match="no validation pairs"):
        train_policy.split_of(pairs, "validation")


def test_parts_together_are_the_whole(world):
    compute_ref_logps.main(reference_flags(world))
    whole = tables.read_rows(world / "ref_logps_0_1.parquet", tables.REF_LOGPS)
    parts = tables.read_rows([world / f"ref_logps_{part}_2.parquet" for part in range(2)], tables.REF_LOGPS)
    for one, other in zip(parts, whole, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_more_parts_than_rows(world, tmp_path):
    sizes = []
    for part in (0, 1, 24):
        out = tmp_path / f"{part}.parquet"
        compute_ref_logps.main(reference_flags(world, part, 25, out=out))
        sizes.append(len(tables.read(out, tables.REF_LOGPS)))
    assert sizes == [0, 1, 1]


def test_a_reference_that_yields_nan_names_the_row(world, tmp_path):
    weights = load_file(world / "sft/model.safetensors")
    weights["model.norm.weight"].fill_(math.nan)
    shutil.copytree(world / "sft", tmp_path / "broken")
    save_file(weights, tmp_path / "broken/model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"prompt_id p\d+: ref_(chosen|rejected)_logps is nan"):
        compute_ref_logps.main(reference_flags(world, model=tmp_path / "broken", out=tmp_path / "x.parquet"))
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize(
    ("name", "ids", "said"),
    [
        ("chosen_ids", [0, VOCABULARY], f"chosen_ids holds the id {VOCABULARY}, but .* has {VOCABULARY} tok"),
        ("prompt_ids", [-1], "prompt_ids holds the id -1, but the model's vocabulary"),
        ("rejected_ids", [], "rejected_ids is empty; take this pair out of the preferences"),
    ],
)
def test_ids_that_a_model_does_not_have(world, tmp_path, name, ids, said):
    rows = [example(number, "train") for number in range(4)]
    rows[3][name] = ids
    tables.write(tmp_path / "t.parquet", rows, tables.TOKENIZED)
    part = {"part": 1, "num_shards": 2}
    with pytest.raises(InputError, match=rf"t\.parquet, row 3, prompt_id p3: {said}"):
        compute_ref_logps.main(
            reference_flags(world, tokenized=tmp_path / "t.parquet", out=tmp_path / "x", **part)
        )


def test_a_policy_with_fewer_tokens_than_its_reference(world, tmp_path, monkeypatch):
    monkeypatch.setattr("prefline.training.weights.load", lambda *_: pytest.fail("it was loaded"))
    small_model.make_model(tmp_path / "small", vocab_size=VOCABULARY - 2)
    with pytest.raises(InputError, match=rf"--tokenized, row \d+, .* vocabulary has {VOCABULARY - 2} tokens"):
        train(world, tmp_path / "out", model=tmp_path / "small")

"""Trainings launched on two devices end where one process ends; stopped, they go on."""

import json
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import small_model

from prefline.data import tables
from prefline.provenance import manifest
from prefline.text import chat

DIALOGUES = [
    {
        "messages": [
            {"role": "user", "content": f"{number} + 1?"},
            {"role": "assistant", "content": f"{number + 1}" * (1 + number % 3)},
        ]
    }
    for number in range(29)
]
PAIRS = [
    {"prompt": f"{number}?", "chosen": f"yes {number}", "rejected": "no" * (1 + number % 5)}
    for number in range(29)
]
# With max_length, 29 blocks: two devices with batches of 2 get three rows of an epoch twice.
TEXTS = [{"text": ("abcdefgh" * 8)[:62]} for _ in range(29)]
TRAININGS = {
    "pretrain": (TEXTS, {"text": "text"}),
    "train_sft": (DIALOGUES, {"messages": "messages"}),
    "train_reward_model": (PAIRS, {name: name for name in ("prompt", "chosen", "rejected")}),
}


def flags_of(script, tmp_path, out, **changes):
    rows, columns = TRAININGS[script]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = tmp_path / "start"
    if not model.exists():  # with the head that is hardest to share out
        small_model.make_model(model, tie_word_embeddings=True)
    usual = {"model": model, "train_data": data, "eval_data": data, "columns": columns, "max_length": 64}
    sizes = {"global_batch_size": 8, "per_device_train_batch_size": 2, "num_train_epochs": 2}
    return small_model.flags(out, **(usual | sizes | changes))


def distance(one, other):
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("pretrain", marks=pytest.mark.long),
        pytest.param("train_sft", marks=pytest.mark.slow),
        pytest.param("train_reward_model", marks=pytest.mark.long),
    ],
)
def test_two_processes_end_where_one_does(script, tmp_path):
    for devices, name in (("", "one"), (small_model.TWO_DEVICES, "two")):
        flags = flags_of(script, tmp_path, tmp_path / name)
        small_model.said_by(small_model.launch(script, flags, devices))
    (wanted, wanted_metrics, wanted_log), (weights, metrics, log) = (
        small_model.results(tmp_path / name) for name in ("one", "two")
    )
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted_log], abs=2e-5)
    assert distance(weights, wanted) < 1e-5
    assert metrics["eval_loss"] == pytest.approx(wanted_metrics["eval_loss"], abs=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_kto_on_two_devices_ends_where_one_does(tmp_path, parallel):
    """The distance from the reference is that of the whole batch, whatever part of it a device has.

    The last batch of an epoch is not full.
    """
    tokenizer = small_model.make_tokenizer()
    small_model.make_model(tmp_path / "sft", tokenizer, initializer_range=0.2)
    manifest.write(tmp_path / "sft.json", tmp_path / "sft", "train_sft", {}, [])
    rows = []
    for number in range(21):
        ids = [
            chat.prompt_and_completion_ids(tokenizer, [{"role": "user", "content": f"Say {number}!"}], answer)
            for answer in (f"It is {number}.", "I would rather not.")
        ]
        row = {"prompt_id": f"p{number}", "split": "test" if number % 5 == 4 else "train"}
        rows.append(row | {"prompt_ids": ids[0][0], "chosen_ids": ids[0][1], "rejected_ids": ids[1][1]})
    tables.write(tmp_path / "tokenized.parquet", rows, tables.TOKENIZED)
    more = {
        "model": tmp_path / "sft",
        "reference": tmp_path / "sft",
        "tokenized": tmp_path / "tokenized.parquet",
    }
    more |= {"beta": 0.5, "desirable_weight": 1.0, "undesirable_weight": 1.0, "learning_rate": 3e-3}
    more |= {"global_batch_size": 8, "num_train_epochs": 2}
    for devices, name, share in (("", "one", 8), (small_model.TWO_DEVICES, "two", 4)):
        flags = small_model.flags(tmp_path / name, **more, per_device_train_batch_size=share)
        small_model.said_by(small_model.launch("train_kto", flags, devices, parallel))
    (weights, metrics, log), (wanted, wanted_metrics, wanted_log) = (
        small_model.results(tmp_path / name) for name in ("two", "one")
    )
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted_log], abs=2e-5)
    assert distance(weights, wanted) < 1e-5
    assert metrics["eval_loss"] == pytest.approx(wanted_metrics["eval_loss"], abs=1e-5)
    assert wanted_metrics["eval_loss"] < wanted_metrics["eval_loss_before"] - 0.02


@pytest.mark.long
@pytest.mark.parametrize("parallel", ["fsdp2", pytest.param("zero3", marks=small_model.ZERO3)])
def test_the_best_checkpoint_of_shared_out_weights_is_taken(tmp_path, parallel):
    """With a rate that rises to the end the held-out loss does: what is saved is what it was lowest at."""
    changes = {"save_steps": 3, "eval_steps": 2, "checkpoint": "best", "num_train_epochs": 6}
    changes |= {"learning_rate": 2.0, "lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 1.0}
    flags = flags_of("train_sft", tmp_path, tmp_path / "two", **changes)
    small_model.said_by(small_model.launch("train_sft", flags, parallel=parallel))
    _, metrics, log = small_model.results(tmp_path / "two")
    losses = {row["step"]: row["eval_loss"] for row in log if "eval_loss" in row}
    assert metrics["saved_step"] == metrics["best_step"] == min(losses, key=losses.get) < max(losses)
    assert metrics["eval_loss"] == pytest.approx(min(losses.values()), abs=1e-5)

    flags = flags_of(
        "train_sft", tmp_path, tmp_path / "from", model=tmp_path / "two/model", num_train_epochs=1
    )
    small_model.said_by(small_model.launch("train_sft", flags, devices=""))
    _, metrics, _ = small_model.results(tmp_path / "from")
    assert metrics["eval_loss_before"] == pytest.approx(min(losses.values()), abs=1e-5), "what was written"


@pytest.mark.long
def test_two_processes_that_are_stopped_go_on_where_they_were(tmp_path):
    flags = flags_of("train_sft", tmp_path, tmp_path / "stopped", num_train_epochs=40)
    undisturbed = flags_of("train_sft", tmp_path, tmp_path / "undisturbed", num_train_epochs=40)
    small_model.said_by(small_model.launch("train_sft", undisturbed))
    process = small_model.launch("train_sft", flags)
    for line in process.stdout:
        if line.startswith("step 8/"):
            break
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    said = process.stdout.read()
    assert process.wait() != 0 and "stopped by SIGTERM" in said, said[-3000:]
    assert time.monotonic() - began < 25, "within the time that a cluster gives"
    assert "resuming after step" in small_model.said_by(small_model.launch("train_sft", flags))
    weights, wanted = (small_model.results(tmp_path / name)[0] for name in ("stopped", "undisturbed"))
    assert distance(weights, wanted) < 1e-6


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),
    ],
)
def test_a_killed_training_leaves_no_process(tmp_path, monkeypatch, number):
    """The launcher, as which the job runs, is killed; its ranks and their helpers end."""
    flags = flags_of("train_sft", tmp_path, tmp_path / "out", num_train_epochs=400)
    monkeypatch.setenv("PREFLINE_GPUS", small_model.TWO_DEVICES)
    process = small_model.launch(
        "train_sft", flags, before=["-m", "prefline.machine.lease_gpus", "2", sys.executable]
    )
    for line in process.stdout:
        if line.startswith("step "):
            break
    others = psutil.Process(process.pid).children(recursive=True)
    assert sum("scripts.models.train_sft" in other.cmdline() for other in others) == 2
    process.send_signal(number)
    said = process.stdout.read()
    assert process.wait() != 0 and (number == signal.SIGKILL or "stopped by SIGTERM" in said)
    left = psutil.wait_procs(others, timeout=30)[1]
    assert [other for other in left if other.status() != psutil.STATUS_ZOMBIE] == []
    for name in small_model.TWO_DEVICES.split(","):
        Path("/tmp", f"prefline-gpu-{name}.lock").unlink()


def stop(process, step):
    """Send SIGTERM once `step` is printed, and wait for the end."""
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            break
    process.send_signal(signal.SIGTERM)
    said = process.stdout.read()
    assert process.wait() != 0 and "stopped by SIGTERM" in said, said[-3000:]


@pytest.mark.long
@pytest.mark.parametrize(("parallel", "devices"), [("ddp", ""), ("fsdp2", "1000,1001,1002,1003")])
def test_on_other_devices_a_training_goes_on_where_it_was(tmp_path, parallel, devices):
    flags = {name: flags_of("train_sft", tmp_path, tmp_path / name) for name in ("one", "moved")}
    small_model.said_by(small_model.launch("train_sft", flags["one"], devices=""))
    stop(small_model.launch("train_sft", flags["moved"], parallel=parallel), 3)
    other = small_model.launch("train_sft", flags["moved"], parallel="fsdp2" if parallel == "ddp" else "ddp")
    said = other.communicate()[0]
    assert other.returncode != 0 and f"was written by {parallel} on 2 devices, and now" in said, said[-3000:]
    assert "resuming after step" in small_model.said_by(
        small_model.launch("train_sft", flags["moved"], devices, parallel)
    )
    (weights, metrics, log), (wanted, wanted_metrics, wanted_log) = (
        small_model.results(tmp_path / name) for name in ("moved", "one")
    )
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted_log], abs=2e-5)
    assert distance(weights, wanted) < 1e-5
    assert metrics["eval_loss"] == pytest.approx(wanted_metrics["eval_loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("parallel", "shards"),
    [
        pytest.param("fsdp2", "pytorch_model_fsdp_0/*.distcp", marks=pytest.mark.slow),
        pytest.param("zero3", "global_step*/*_optim_states.pt", marks=[pytest.mark.long, small_model.ZERO3]),
    ],
)
def test_weights_that_are_shared_out_end_where_whole_ones_do(tmp_path, parallel, shards):
    """Stopped and gone on with. That they really are shared out, the checkpoint's form shows."""
    flags = {name: flags_of("train_sft", tmp_path, tmp_path / name, save_steps=2) for name in ("one", "two")}
    small_model.said_by(small_model.launch("train_sft", flags["one"], devices=""))
    stop(small_model.launch("train_sft", flags["two"], parallel=parallel), 3)
    assert len(list((tmp_path / "two/work").glob(f"*/checkpoint-*/{shards}"))) == 2
    assert "resuming after step" in small_model.said_by(
        small_model.launch("train_sft", flags["two"], parallel=parallel)
    )
    (weights, metrics, log), (wanted, wanted_metrics, wanted_log) = (
        small_model.results(tmp_path / name) for name in ("two", "one")
    )
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted_log], abs=2e-5)
    assert distance(weights, wanted) < 1e-5
    assert metrics["eval_loss"] == pytest.approx(wanted_metrics["eval_loss"], abs=1e-5)

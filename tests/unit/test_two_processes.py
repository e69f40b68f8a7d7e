"""Trainings launched on two devices end where one process ends; stopped, they go on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import small_model

DIALOGUES = [
    {
        "messages": [
            {"role": "user", "content": f"{number} + 1?"},
            {"role": "assistant", "content": f"{number + 1}" * (1 + number % 3)},
        ]
    }
    for number in range(32)
]
PAIRS = [
    {"prompt": f"{number}?", "chosen": f"yes {number}", "rejected": "no" * (1 + number % 5)}
    for number in range(32)
]
# With max_length, 32 blocks: an epoch's last batch that is short has rows twice where devices share it.
TEXTS = [{"text": ("abcdefgh" * 8)[:62]} for _ in range(32)]
TRAININGS = {
    "pretrain": (TEXTS, {"text": "text"}),
    "train_sft": (DIALOGUES, {"messages": "messages"}),
    "train_reward_model": (PAIRS, {name: name for name in ("prompt", "chosen", "rejected")}),
}


def start(script, flags, devices="", parallel="ddp"):
    """The running process of a training with those devices, which share the work as `parallel` says."""
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.launch", parallel, f"scripts.{script}", *flags],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": devices, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def flags_of(script, tmp_path, out, **changes):
    rows, columns = TRAININGS[script]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = tmp_path / "start"
    if not model.exists():
        small_model.make_model(model)
    usual = {"model": model, "train_data": data, "eval_data": data, "columns": columns, "max_length": 64}
    sizes = {"global_batch_size": 8, "per_device_train_batch_size": 2, "num_train_epochs": 2}
    return small_model.flags(out, **usual, **(sizes | changes))


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
    for devices, name in (("", "one"), ("0,1", "two")):
        process = start(script, flags_of(script, tmp_path, tmp_path / name), devices)
        said, _ = process.communicate()
        assert process.returncode == 0, said[-3000:]
    (wanted, wanted_metrics, wanted_log), (weights, metrics, log) = (
        small_model.results(tmp_path / name) for name in ("one", "two")
    )
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted_log], abs=1e-5)
    assert distance(weights, wanted) < 1e-5
    assert metrics["eval_loss"] == pytest.approx(wanted_metrics["eval_loss"], abs=1e-5)


@pytest.mark.long
def test_two_processes_that_are_stopped_go_on_where_they_were(tmp_path):
    flags = flags_of("train_sft", tmp_path, tmp_path / "stopped", num_train_epochs=40)
    undisturbed = flags_of("train_sft", tmp_path, tmp_path / "undisturbed", num_train_epochs=40)
    process = start("train_sft", undisturbed, "0,1")
    assert process.wait() == 0
    process = start("train_sft", flags, "0,1")
    for line in process.stdout:
        if line.startswith("step 8/"):
            break
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    said = process.stdout.read()
    assert process.wait() != 0 and "stopped by SIGTERM" in said, said[-3000:]
    assert time.monotonic() - began < 25, "within the time that a cluster gives"
    process = start("train_sft", flags, "0,1")
    said, _ = process.communicate()
    assert process.returncode == 0 and "going on after step" in said, said[-3000:]
    weights, wanted = (small_model.results(tmp_path / name)[0] for name in ("stopped", "undisturbed"))
    assert distance(weights, wanted) < 1e-6


@pytest.mark.slow
def test_weights_that_are_shared_out_end_where_whole_ones_do(tmp_path):
    """FSDP2, stopped and gone on with. That accelerate really shares out, the checkpoint's form shows."""
    flags = {name: flags_of("train_sft", tmp_path, tmp_path / name, save_steps=2) for name in ("one", "two")}
    assert start("train_sft", flags["one"]).wait() == 0
    process = start("train_sft", flags["two"], "0,1", "fsdp2")
    for line in process.stdout:
        if line.startswith("step 3/"):
            break
    process.send_signal(signal.SIGTERM)
    said = process.stdout.read()
    assert process.wait() != 0 and "stopped by SIGTERM" in said, said[-3000:]
    (shards,) = (tmp_path / "two/work").glob("*/checkpoint-*/pytorch_model_fsdp_0")
    assert len(list(shards.glob("*.distcp"))) == 2
    process = start("train_sft", flags["two"], "0,1", "fsdp2")
    said, _ = process.communicate()
    assert process.returncode == 0 and "going on after step" in said, said[-3000:]
    (weights, metrics, log), (wanted, wanted_metrics, wanted_log) = (
        small_model.results(tmp_path / name) for name in ("two", "one")
    )
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted_log], abs=1e-5)
    assert distance(weights, wanted) < 1e-5
    assert metrics["eval_loss"] == pytest.approx(wanted_metrics["eval_loss"], abs=1e-5)

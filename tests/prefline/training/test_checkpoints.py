"""Checkpoints: a full disk keeps the last good one; best and early stopping, resumed as if undisturbed."""

import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_model
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefline.errors import InputError
from prefline.training import checkpoints, early_stopping, loop, results
from scripts.models import pretrain

# Overfits: the held-out loss falls, then rises.
OVERFITTING = {
    "learning_rate": 2e-2,
    "lr_scheduler_type": "constant_with_warmup",
    "num_train_epochs": 6,
    "save_steps": 3,
    "eval_steps": 2,
    "checkpoint": "best",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return small_model.make_texts(tmp_path_factory.mktemp("world"), 12)


def flags(world, out, **changed):
    return small_model.text_flags(world, out, **{"max_length": 32} | changed)


def run(world, out, within=(), **changed):
    """(exit status, what it says) of a pretraining in a process of its own, by the command `within`."""
    done = subprocess.run(
        [*within, sys.executable, "-m", "scripts.models.pretrain", *flags(world, out, **changed)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def assert_same(out, other, but=()):
    (weights, metrics, log), (wanted, wanted_metrics, wanted_log) = (
        small_model.results(folder) for folder in (out, other)
    )
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    assert log == wanted_log
    for name in metrics.keys() - {"train_runtime", "train_tokens_per_second", "peak_memory_mb", *but}:
        assert metrics[name] == wanted_metrics[name], name


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    pretrain.main(flags(world, out, **OVERFITTING))
    return out


def evaluated(log):
    return [(row["eval_loss"], row["step"]) for row in log if "eval_loss" in row]


def test_the_best_weights_are_those_of_the_lowest_held_out_loss(undisturbed):
    _, metrics, log = small_model.results(undisturbed)
    last = log[-1]["step"]
    assert [step for _, step in evaluated(log)] == [*range(2, int(last) + 1, 2)]
    assert min(evaluated(log)) == pytest.approx((metrics["best_eval_loss"], metrics["best_step"]), rel=1e-5)
    assert metrics["saved_step"] == metrics["best_step"] < last
    assert metrics["eval_loss"] == metrics["best_eval_loss"], "they were saved and loaded to the bit"
    assert not metrics["stopped_early"]


@pytest.mark.slow
def test_looking_changes_neither_weights_nor_the_log(world, undisturbed, tmp_path):
    """Though the model has dropout, and data comes in an order that is drawn."""
    seen, blind = tmp_path / "seen", tmp_path / "blind"
    pretrain.main(flags(world, seen, **OVERFITTING | {"checkpoint": "last"}))
    pretrain.main(flags(world, blind, **OVERFITTING | {"checkpoint": "last", "eval_steps": None}))
    (weights, metrics, log), (wanted, wanted_metrics, wanted_log) = map(small_model.results, (seen, blind))
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    assert [{name: row[name] for name in row if name != "eval_loss"} for row in log] == wanted_log
    assert metrics["eval_loss"] == wanted_metrics["eval_loss"] > metrics["best_eval_loss"]
    assert metrics["saved_step"] == metrics["train_steps"]


def test_patience_stops_after_evaluations_that_were_no_better(world, undisturbed, tmp_path):
    pretrain.main(flags(world, tmp_path, **OVERFITTING | {"early_stopping_patience": 2}))
    _, metrics, log = small_model.results(tmp_path)
    wanted = small_model.results(undisturbed)[2]
    assert metrics["stopped_early"]
    assert metrics["saved_step"] == metrics["best_step"]
    assert metrics["train_steps"] == metrics["best_step"] + 4 < len(wanted)
    assert [row["loss"] for row in log] == [row["loss"] for row in wanted[: len(log)]]
    assert metrics["eval_loss"] == metrics["best_eval_loss"]


def interrupted(world, out, step, number, **changed):
    """Send signal `number` after `step` is printed, then run to the end; what the second run says."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.models.pretrain", *flags(world, out, **changed)],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            os.kill(process.pid, number)
            break
    process.communicate()
    assert process.returncode in (-signal.SIGKILL, loop.TERMINATED, 0)
    status, said = run(world, out, **changed)
    assert status == 0, said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_interrupted_it_ends_in_the_same_best_weights(world, undisturbed, tmp_path, number):
    metrics = small_model.results(undisturbed)[1]
    # Which step is the best is the processor's rounding, too.
    step = min(metrics["best_step"] + 5, metrics["train_steps"] - 6)
    said = interrupted(world, tmp_path, step, number, **OVERFITTING)
    assert "resuming after step" in said
    assert_same(tmp_path, undisturbed)


@pytest.mark.long
def test_interrupted_it_stops_as_early(world, tmp_path):
    stopping = OVERFITTING | {"early_stopping_patience": 3, "save_steps": 1}
    pretrain.main(flags(world, tmp_path / "a", **stopping))
    last = small_model.results(tmp_path / "a")[1]["train_steps"]
    for step in (last - 3, last):
        out = tmp_path / f"b{step}"
        interrupted(world, out, step, signal.SIGKILL, **stopping)
        assert_same(out, tmp_path / "a")


@pytest.mark.slow
def test_stopped_but_not_saved_it_is_not_taken_further(world, tmp_path, monkeypatch):
    """Killed after an early stop whose step has a checkpoint; the best one still stands beside it."""
    stopping = OVERFITTING | {"early_stopping_patience": 2, "save_steps": 1}
    words = flags(world, tmp_path / "a", **stopping)
    with monkeypatch.context() as patch:
        patch.setattr(results, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pretrain.main(words)
    assert len(list(tmp_path.glob("a/work/*/checkpoint-*"))) == 2, "the last and the best"
    pretrain.main(words)
    pretrain.main(flags(world, tmp_path / "b", **stopping))
    assert_same(tmp_path / "a", tmp_path / "b")


class Disk:
    """A file system of its own for `folder`, which processes see that are started by `within`.

    In namespaces, where any user may mount one.
    """

    def __init__(self, folder):
        folder.mkdir()
        mount = 'mount -t tmpfs -o size=100m none "$0" && echo mounted && exec sleep 900'
        self.holder = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = self.holder.stdout.readline()
        self.seen = Path(f"/proc/{self.holder.pid}/root{folder}")  # by this process
        self.ballast = self.seen / "ballast"
        target = ["--target", str(self.holder.pid), "--user", "--mount", f"--wd={os.getcwd()}"]
        self.within = ["nsenter", *target, "--preserve-credentials"]

    def fill(self, leave):
        """Take all but `leave` bytes; `ballast` is what takes them."""
        disk = os.statvfs(self.seen)
        with open(self.ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - leave)

    def close(self):
        self.holder.kill()
        self.holder.communicate()


@pytest.fixture
def disk(tmp_path):
    if shutil.which("unshare") is None:
        pytest.skip("only Linux has namespaces")
    disk = Disk(tmp_path / "work")
    if disk.said != "mounted\n":
        disk.close()
        pytest.skip(f"this user has no namespaces: {disk.said}")
    yield disk
    disk.close()


@pytest.fixture(scope="module")
def without_evaluation(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain")
    pretrain.main(flags(world, out, save_steps=2, num_train_epochs=2))
    return out


@pytest.mark.parametrize(
    "leave",
    [pytest.param(900 * 2**10, marks=pytest.mark.slow), pytest.param(1000 * 2**10, marks=pytest.mark.long)],
)
def test_a_full_disk_keeps_the_last_good_checkpoint(world, without_evaluation, tmp_path, disk, leave):
    """A checkpoint is about 600 kB: one fits, and of the next its weights or parts of the rest."""
    usual = {"save_steps": 2, "num_train_epochs": 2}
    disk.fill(leave)
    status, said = run(world, tmp_path, disk.within, **usual)
    assert status == 1, said
    assert "Traceback" not in said and "error: " not in said
    assert (
        "No space left on device while a checkpoint was written; the last good one is checkpoint-2; "
        "free disk space and start again" in said
    )
    (kept,) = disk.seen.glob("*/checkpoint-*")
    assert kept.name == "checkpoint-2" and (kept / checkpoints.MARKER).exists()
    assert not (tmp_path / "model").exists()
    disk.ballast.unlink()
    status, said = run(world, tmp_path, disk.within, **usual)
    assert status == 0 and "resuming after step 2 " in said, said
    assert_same(tmp_path, without_evaluation)


@pytest.mark.parametrize("flag", [{"checkpoint": "best"}, {"early_stopping_patience": 3}])
def test_a_choice_by_held_out_losses_needs_them(world, tmp_path, flag):
    (key,) = flag
    with pytest.raises(InputError, match=rf"^{key} .* eval_steps is null; set it to a number"):
        pretrain.main(flags(world, tmp_path, **flag))


losses = st.lists(st.none() | st.integers(0, 5), min_size=1, max_size=30)


@given(losses, st.integers(1, 4))
def test_stopping_is_the_first_time_that_patience_is_at_an_end(losses, patience):
    """Against the loop that one would write: it sees the losses one by one."""
    history, best, waited, over = [], math.inf, 0, False
    for step, loss in enumerate(losses, 1):
        history.append({"step": step} | ({} if loss is None else {"eval_loss": float(loss)}))
        if loss is not None:
            best, waited = (loss, 0) if loss < best else (best, waited + 1)
        over = waited >= patience
        assert early_stopping.is_time_to_stop(history, patience) == over
        if best < math.inf:
            assert history[early_stopping.best_step(history) - 1]["eval_loss"] == best
        if over:
            break
    assert not early_stopping.is_time_to_stop(history, None)

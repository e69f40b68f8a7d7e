"""Trainings of a policy that are stopped, killed or asked for again end where an undisturbed one does."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import small_model
from policy_training import distance, make_world, train, training_flags

from prefline.training.preference_trainer import PreferenceTrainer


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    return train(world, tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize(("before", "after"), [(8, 2), pytest.param(2, 4, marks=pytest.mark.slow)])
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
    assert "resuming after step 4 of 6" in capsys.readouterr().out
    wanted, wanted_metrics, wanted_log = undisturbed
    assert distance(weights, wanted) < 1e-5
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted_log], rel=1e-5)
    assert metrics["train_tokens"] == wanted_metrics["train_tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_training_ends_where_an_undisturbed_one_does(world, undisturbed, tmp_path, number):
    command = [sys.executable, "-m", "scripts.train.train_policy", *training_flags(world, tmp_path)]
    # Slow the steps down, so that the signal arrives in the middle.
    slow = "import prefline.training.losses as l, time; f = l.total; "
    slow += "l.total = lambda *a: (time.sleep(0.3), f(*a))[1]; "
    slow += "from scripts.train import train_policy as t; from prefline import errors; errors.run(t.main)"
    process = subprocess.Popen([sys.executable, "-c", slow, *command[3:]], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("work/*/checkpoint-2/COMPLETE")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, number)
    process.communicate()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert not (tmp_path / "model").exists()

    resumed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "resuming after step" in resumed.stdout
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


@pytest.mark.slow
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
    assert "model.safetensors: differs from the cached file; training again" in capsys.readouterr().out
    assert artifacts(out)["model/model.safetensors"] == first["model/model.safetensors"]
    assert "nothing to train" in subprocess.run(command, capture_output=True, text=True, check=True).stdout

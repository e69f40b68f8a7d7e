"""Online trainings that are stopped or asked for again end where an undisturbed one does."""

import signal

import pytest
import small_model
import torch
from online_training import OWN, SHORT, make_world, reported, train, words

from prefline.errors import InputError

STOPS = '''
import os, signal
from pathlib import Path

calls = []

def reward(messages, completion, reference, marker, call):
    """Minus the length; sends SIGTERM at a call, while there is a marker."""
    calls.append(completion)
    if len(calls) == call and Path(marker).exists():
        Path(marker).unlink()
        os.kill(os.getpid(), signal.SIGTERM)
    return -len(completion)
'''


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("online"))


def stopped(world, tmp_path, method, call, **settings):
    """Have SIGTERM stop a training at a call of its reward; returns the rewards, which do so no more."""
    (tmp_path / "own.py").write_text(STOPS)
    (tmp_path / "marker").touch()
    arguments = {"marker": str(tmp_path / "marker"), "call": call}
    function = {"kind": "function", "function": f"{tmp_path}/own.py:reward", "arguments": arguments}
    rewards = {"own": function | OWN}
    with pytest.raises(SystemExit) as raised:
        train(world, tmp_path, method, rewards, **settings)
    assert raised.value.code == 143
    return rewards


def checkpoint_of(tmp_path):
    """The one checkpoint of a training that was stopped after 5 steps."""
    (checkpoint,) = tmp_path.glob("work/*/checkpoint-*")
    assert checkpoint.name == "checkpoint-5"
    return checkpoint


@pytest.mark.slow
def test_ppo_that_is_stopped_begins_again(world, tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)
    rewards = stopped(world, tmp_path, "ppo", call=16 * 3)  # the second step's
    assert signal.getsignal(signal.SIGTERM) is before
    assert "ppo has no checkpoints and will begin again" in capsys.readouterr().out
    assert [step for step, _ in reported(tmp_path, "loss")] == [1]
    weights, _, log = train(world, tmp_path, "ppo", rewards)
    assert [step for step, _ in reported(tmp_path, "loss")] == [1, 2]
    wanted, _, wanted_log = train(world, tmp_path, "ppo", rewards, work_dir=tmp_path / "other")
    assert log == wanted_log and [row["step"] for row in log] == [1, 2]
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "num_iterations", "peft"),
    [("rloo", 1, None), ("rloo", 2, None), ("grpo", 2, None), ("grpo", 1, small_model.LORA)],
)
def test_a_training_that_was_stopped_ends_as_an_undisturbed_one(
    world, tmp_path, method, num_iterations, peft
):
    """With two iterations it is stopped between two steps on the same completions."""
    # 16 held-out completions, then 16 for each sampling: in the second epoch.
    call = 16 * (6 if num_iterations == 1 else 4)
    settings = {"num_iterations": num_iterations, "per_device_train_batch_size": 8, "peft": peft}
    rewards = stopped(world, tmp_path, method, call, **settings)
    checkpoint_of(tmp_path)
    weights, _, log = train(world, tmp_path, method, rewards, **settings)
    wanted, _, wanted_log = train(world, tmp_path, method, rewards, work_dir=tmp_path / "other", **settings)
    assert log == wanted_log
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    assert not list(tmp_path.glob("work/*/checkpoint-*")), "the result is kept instead"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rloo", "grpo"])
@pytest.mark.parametrize(("rows", "fewer"), [(16, 4), (8, 2)])
def test_between_two_steps_on_the_same_completions_it_goes_on_with_fewer_at_once(
    world, tmp_path, method, rows, fewer
):
    """As after running out of memory; but not on another number of devices."""
    settings = {"num_iterations": 2, "per_device_train_batch_size": rows}
    rewards = stopped(world, tmp_path, method, 16 * 4, **settings)
    checkpoint = checkpoint_of(tmp_path)
    other_device = checkpoint / "completions_1.safetensors"
    other_device.touch()
    with pytest.raises(InputError, match=r"checkpoint-5 lies between two .* 2 devices .* train with 2 again"):
        train(world, tmp_path, method, rewards, **settings)
    other_device.unlink()
    settings["per_device_train_batch_size"] = fewer
    weights, _, log = train(world, tmp_path, method, rewards, **settings)
    wanted, _, wanted_log = train(world, tmp_path, method, rewards, work_dir=tmp_path / "other", **settings)
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted_log], abs=2e-5)
    assert all(torch.allclose(weights[name], wanted[name], rtol=0, atol=1e-5) for name in wanted)


def test_what_was_trained_before_is_taken_from_where_it_was_kept(world, tmp_path, capsys):
    wanted, metrics, log = train(world, tmp_path, "rloo", num_train_epochs=1)
    weights, again, same = train(world, tmp_path, "rloo", num_train_epochs=1, batch_tokens=999)
    assert "nothing to train" in capsys.readouterr().out
    assert (again, same) == (metrics, log)
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


@pytest.mark.long
def test_two_processes_that_are_stopped_go_on_where_they_were(world, tmp_path):
    """In the middle of an epoch."""
    changed = {"per_device_train_batch_size": 8, "num_iterations": 2}
    flags = {name: words(world, tmp_path / name, "rloo", {"short": SHORT}, **changed) for name in "ab"}
    small_model.said_by(small_model.launch("train_online", flags["a"]))
    process = small_model.launch("train_online", flags["b"])
    for line in process.stdout:
        if line.startswith("step 9/"):
            break
    process.send_signal(signal.SIGTERM)
    said = process.stdout.read()
    assert process.wait() != 0 and "stopped by SIGTERM at step 1" in said
    said = small_model.said_by(small_model.launch("train_online", flags["b"]))
    assert "resuming after step 1" in said
    (weights, _, log), (wanted, _, wanted_log) = (small_model.results(tmp_path / name) for name in "ba")
    assert log == wanted_log
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)

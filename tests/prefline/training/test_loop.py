"""The training loop: resuming, NaN, accumulation, precision, optimizers."""

import errno
import math
import os
import random
import re
import signal
import subprocess
import sys

import pytest
import small_model
import torch
from safetensors.torch import load_file

from prefline import files
from prefline.errors import InputError
from prefline.training import checkpoints, loop, models, results
from scripts.models import pretrain


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return small_model.make_texts(tmp_path_factory.mktemp("world"), 60)


def flags(world, out, **changed):
    return small_model.text_flags(world, out, **{"max_length": 64} | changed)


def start(world, out, **changed):
    """A pretraining in a process of its own, on one thread."""
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.models.pretrain", *flags(world, out, **changed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process):
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return output


def stop_at(process, step, number):
    """Send signal `number` once `step` is printed; return the exit status."""
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            os.kill(process.pid, number)
            break
    process.communicate()
    return process.returncode


def assert_same(out, other):
    weights, metrics, log = small_model.results(out)
    wanted_weights, wanted_metrics, wanted_log = small_model.results(other)
    assert weights.keys() == wanted_weights.keys()
    assert all(torch.equal(weights[name], wanted_weights[name]) for name in weights)
    assert log == wanted_log
    varying = ("train_runtime", "train_tokens_per_second", "peak_memory_mb")
    assert {name: metrics[name] for name in metrics if name not in varying} == {
        name: wanted_metrics[name] for name in wanted_metrics if name not in varying
    }


EVERY_STEP = {"num_train_epochs": 1.7, "save_steps": 5, "peft": small_model.LORA}


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    finish(start(world, out, **EVERY_STEP))
    return out


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_to_the_bit(world, undisturbed, tmp_path):
    assert stop_at(start(world, tmp_path, **EVERY_STEP), 17, signal.SIGKILL) == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    assert "resuming after step" in finish(start(world, tmp_path, **EVERY_STEP))
    assert_same(tmp_path, undisturbed)
    assert not list(tmp_path.glob("work/*/checkpoint-*")), "the checkpoints have done their work"


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=pytest.mark.slow if seed < 1 else pytest.mark.long) for seed in range(4)],
)
def test_killed_at_any_steps_it_is_the_same(world, undisturbed, tmp_path, seed):
    draw = random.Random(seed)
    last = len(small_model.results(undisturbed)[2])
    for step in sorted(draw.sample(range(1, last - 2), 2)):
        number = draw.choice([signal.SIGKILL, signal.SIGTERM])
        stop_at(start(world, tmp_path, **EVERY_STEP), step, number)
    finish(start(world, tmp_path, **EVERY_STEP))
    assert_same(tmp_path, undisturbed)


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_of_that_step(world, undisturbed, tmp_path):
    changed = EVERY_STEP | {"save_steps": 1000}
    assert stop_at(start(world, tmp_path, **changed), 8, signal.SIGTERM) == loop.TERMINATED
    (folder,) = {marker.parents[1] for marker in tmp_path.glob(f"work/*/*/{checkpoints.MARKER}")}
    step = int(checkpoints.last_complete(folder).name.rsplit("-", 1)[1])
    assert step >= 8
    assert f"resuming after step {step}" in finish(start(world, tmp_path, **changed))
    assert_same(tmp_path, undisturbed)


def stop_before_saving(words, monkeypatch):
    """Train, and be killed before the model is written."""
    with monkeypatch.context() as patch:
        patch.setattr(results, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pretrain.main(words)


def test_a_training_that_was_over_is_not_taken_a_step_further(world, tmp_path, monkeypatch):
    """Killed after the last step, before the model was saved; the epoch is broken off by num_train_epochs."""
    words = flags(world, tmp_path / "a", num_train_epochs=0.5)
    stop_before_saving(words, monkeypatch)
    pretrain.main(words)
    pretrain.main(flags(world, tmp_path / "b", num_train_epochs=0.5))
    assert_same(tmp_path / "a", tmp_path / "b")


def test_a_checkpoint_that_is_shared_out_in_another_way_is_one_sentence(world, tmp_path, monkeypatch):
    words = flags(world, tmp_path, num_train_epochs=0.1)
    stop_before_saving(words, monkeypatch)
    (path,) = tmp_path.glob(f"work/*/checkpoint-*/{checkpoints.MARKER}")
    marker = files.read_json(path)
    assert marker["written"] == {"parallel": None, "devices": 1} and marker["seconds"] > 0
    files.write_json(path, marker | {"written": {"parallel": "fsdp2", "devices": 2}})
    with pytest.raises(InputError, match=r"checkpoint-\d+ was written by fsdp2 on 2 devices, and now"):
        pretrain.main(words)


def test_a_file_system_without_locks_is_no_obstacle(world, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(checkpoints.fcntl, "flock", refuse)
    pretrain.main(flags(world, tmp_path, num_train_epochs=0.1))
    assert (tmp_path / "model/model.safetensors").exists()


def test_accumulation_does_not_matter(world, tmp_path):
    model = small_model.make_model(tmp_path / "start")
    for size in (4, 1):
        out = tmp_path / str(size)
        pretrain.main(flags(world, out, model=model, per_device_train_batch_size=size))
    one, other = (small_model.results(tmp_path / size)[0] for size in ("4", "1"))
    assert max((one[name] - other[name]).abs().max() for name in one) < 1e-4


def test_a_loss_that_is_not_finite_names_step_and_rows_and_keeps_the_last_good_checkpoint(
    world, tmp_path, monkeypatch
):
    from transformers import Trainer

    step_of, seen = Trainer.training_step, []

    def poisoned(self, model, inputs, *rest):
        seen.append(inputs["input_ids"].tolist())
        loss = step_of(self, model, inputs, *rest)
        return loss * math.nan if len(seen) == 7 else loss

    monkeypatch.setattr(Trainer, "training_step", poisoned)
    made = []
    fit = loop.fit
    monkeypatch.setattr(loop, "fit", lambda t, *rest: made.append(t.train_dataset) or fit(t, *rest))
    with pytest.raises(InputError, match=r"loss became nan at step 7 of \d+ .*block.*checkpoint-6") as raised:
        pretrain.main(flags(world, tmp_path, save_steps=3, max_grad_norm=0.0))
    named = [f"block {made[0].index(row)}" for row in seen[6]]
    assert f"in the batch of {', '.join(named)};" in str(raised.value)
    assert not (tmp_path / "model").exists()
    assert [path.name for path in tmp_path.glob("work/*/checkpoint-*")] == ["checkpoint-6"]


def test_a_gradient_that_is_not_finite_is_seen_before_its_weights_are_kept(world, tmp_path):
    with pytest.raises(InputError, match=r"(loss|gradient) became (nan|inf)") as raised:
        pretrain.main(flags(world, tmp_path, learning_rate=1e30, save_steps=1, max_grad_norm=0.0))
    (kept,) = tmp_path.glob("work/*/checkpoint-*")
    step = int(re.search(r"at step (\d+) of", str(raised.value))[1])
    assert kept.name == f"checkpoint-{step - 1}" and str(raised.value).endswith(str(kept))
    assert all(tensor.isfinite().all() for tensor in load_file(kept / "model.safetensors").values())


def test_full_training_in_bfloat16(world, tmp_path):
    pretrain.main(flags(world, tmp_path, dtype="bfloat16", gradient_checkpointing=True))
    weights, metrics, _ = small_model.results(tmp_path)
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert metrics["eval_loss"] < metrics["eval_loss_before"] - 0.5


@pytest.mark.slow
@pytest.mark.parametrize("optim", ["adamw_8bit", "paged_adamw_32bit"])
def test_other_optimizers_learn_and_go_on_where_they_were(world, tmp_path, monkeypatch, optim):
    settings = {"optim": optim, "save_steps": 2}
    pretrain.main(flags(world, tmp_path / "whole", **settings))
    _, metrics, _ = small_model.results(tmp_path / "whole")
    assert metrics["eval_loss"] < metrics["eval_loss_before"] - 0.5

    def stopped(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.Watch, "on_step_end", stopped)
        with pytest.raises(KeyboardInterrupt):
            pretrain.main(flags(world, tmp_path / "stopped", **settings))
    assert list(tmp_path.glob("stopped/work/*/checkpoint-2"))
    pretrain.main(flags(world, tmp_path / "stopped", **settings))
    assert_same(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "needs"),
    [("flash_attention_2", "flash-attn"), ("flex_attention", "a GPU")],
)
def test_an_attention_that_the_machine_lacks(world, tmp_path, name, needs):
    with pytest.raises(InputError, match=f"attn_implementation is {name}, which needs .*{needs}"):
        pretrain.main(flags(world, tmp_path, attn_implementation=name))


def test_a_half_written_checkpoint_is_not_gone_on_with(tmp_path):
    for step in (5, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert checkpoints.last_complete(tmp_path) is None
    for step in (5, 10):
        files.write_json(tmp_path / f"checkpoint-{step}" / checkpoints.MARKER, {})
    assert checkpoints.last_complete(tmp_path) == tmp_path / "checkpoint-10"


def test_a_gpu_that_is_too_old_for_an_attention(monkeypatch):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(InputError, match=r"which needs a GPU of compute capability 8\.0 \(Ampere\) or later"):
        models.check_attention("flash_attention_2", "bfloat16")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    models.check_attention("flash_attention_2", "bfloat16")

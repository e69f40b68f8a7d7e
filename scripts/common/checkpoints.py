"""The training loop's safety net: checkpoints that are whole, resuming, SIGTERM, losses that are not finite.

Hugging Face's Trainer writes a checkpoint file by file, so a killed one leaves a folder that looks finished.
Here a marker follows the last file; folders without it are deleted, older checkpoints only once it stands. A
resumed training sees the same rows in the same order with the same random numbers as an undisturbed one,
and on a CPU in float32 ends in the same bits.
"""

import contextlib
import fcntl
import math
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from transformers import PrinterCallback, TrainerCallback, TrainerState, set_seed

from scripts.common import files, trainer
from scripts.common.errors import InputError

MARKER = "COMPLETE"
STATE = "trainer_state.json"
TERMINATED = 128 + signal.SIGTERM
ROWS_NAMED = 16

_locks = {}  # by path; held until the process ends: the script still writes what it has trained


def fit(model_trainer, args, key, rows):
    """See trainer.fit."""
    folder = Path(args.work_dir) / key
    folder.mkdir(parents=True, exist_ok=True)
    if trainer.is_main():
        _lock(folder.with_suffix(".lock"))
        _remove(folder, keep=last_complete(folder))
    model_trainer.accelerator.wait_for_everyone()
    model_trainer.args.output_dir = str(folder)
    model_trainer.remove_callback(PrinterCallback)
    checkpoint = last_complete(folder)
    watch = Watch(model_trainer, rows, files.read_json(checkpoint / MARKER) if checkpoint else 0.0)
    model_trainer.add_callback(watch)
    set_seed(model_trainer.args.seed)
    with _sigterm(watch):
        if checkpoint and _is_last(checkpoint):
            # Asked to resume after its last step, Trainer would take one more in a broken-off epoch.
            model_trainer._load_from_checkpoint(str(checkpoint))
            model_trainer.state = TrainerState.load_from_json(str(checkpoint / STATE))
        else:
            model_trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if watch.terminated:
        print(f"stopped by SIGTERM at step {model_trainer.state.global_step}; the checkpoint is in {folder}")
        sys.exit(TERMINATED)
    history = [step for step in map(_numbers, model_trainer.state.log_history) if "loss" in step]
    if trainer.is_main():
        trainer.write_log(args.log_csv, history)
    tokens, seconds = model_trainer.state.num_input_tokens_seen, watch.seconds()
    return {
        "train_loss": math.fsum(step["loss"] for step in history) / len(history),
        "train_steps": len(history),
        "train_tokens": tokens,
        "train_runtime": round(seconds, 3),
        "train_tokens_per_second": round(tokens / seconds, 1),
        **peak_memory(),
    }


def last_complete(folder):
    """Path of the checkpoint with the most steps that was written to its end; None if there is none."""
    whole = [marker.parent for marker in Path(folder).glob(f"checkpoint-*/{MARKER}")]
    return max(whole, key=lambda checkpoint: int(checkpoint.name.rsplit("-", 1)[1]), default=None)


def peak_memory():
    """Most memory that this process has held so far, in MB (10⁶ bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 10**6}
    if torch.cuda.is_available():
        peak["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() // 10**6
    return peak


class Watch(TrainerCallback):
    """Looks at every step: is the loss finite, has somebody asked us to stop, is the checkpoint whole."""

    def __init__(self, model_trainer, rows, seconds_before):
        self.trainer = model_trainer
        self.rows = rows
        self.seconds_before = seconds_before
        self.started = time.monotonic()
        self.signalled = False
        self.terminated = False

    def seconds(self):
        """Seconds of training, those before the checkpoint that this process went on from included."""
        return self.seconds_before + time.monotonic() - self.started

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step:
            print(f"going on after step {state.global_step} of {state.max_steps}", flush=True)
        self.started = time.monotonic()

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" not in logs:
            return
        for name, meaning in (("loss", "loss"), ("grad_norm", "norm of the gradient")):
            if not math.isfinite(logs.get(name, 0.0)):
                raise InputError(self._complaint(meaning, logs[name], state, kwargs["train_dataloader"]))
        step, last = state.global_step, state.max_steps
        if trainer.is_main() and (step % trainer.log_steps(last) == 0 or step == last):
            print(
                f"step {step}/{last}  epoch {state.epoch:.2f}  loss {logs['loss']:.4f}  "
                f"learning rate {logs['learning_rate']:.2e}",
                flush=True,
            )

    def on_step_end(self, args, state, control, **kwargs):
        # Every process must stop after the same step: they ask each other whether one was signalled.
        if self.signalled:
            self.trainer.accelerator.set_trigger()
        if self.trainer.accelerator.check_trigger():
            self.terminated = True
            control.should_save = True
            control.should_training_stop = True

    def on_save(self, args, state, control, **kwargs):
        self.trainer.accelerator.wait_for_everyone()
        if not trainer.is_main():
            return
        folder = Path(args.output_dir)
        checkpoint = folder / f"checkpoint-{state.global_step}"
        for member in checkpoint.rglob("*"):
            if member.is_file():
                with open(member, "rb") as written:
                    os.fsync(written.fileno())
        files.write_json(checkpoint / MARKER, round(self.seconds(), 3))
        _remove(folder, keep=checkpoint)

    def _complaint(self, meaning, value, state, dataloader):
        if hasattr(self.trainer, "rows_of_step"):
            named = self.trainer.rows_of_step()
        else:
            named = [self.rows[row] for row in rows_of_step(self.trainer, state, dataloader)]
        more = f" and {len(named) - ROWS_NAMED} more" if len(named) > ROWS_NAMED else ""
        kept = last_complete(self.trainer.args.output_dir)
        return (
            f"the {meaning} became {value} at step {state.global_step} of {state.max_steps} (epoch "
            f"{state.epoch:.2f}), in the batch of {', '.join(named[:ROWS_NAMED])}{more}; look at these rows, "
            f"or lower learning_rate; the last good checkpoint is {kept or 'none: it was the beginning'}"
        )


def rows_of_step(model_trainer, state, dataloader):
    """Numbers (list of int) of the rows of train_dataset that the step just taken was made of."""
    sampler = dataloader.batch_sampler
    while not hasattr(sampler, "sampler"):
        sampler = sampler.batch_sampler
    sampler = sampler.sampler
    size = model_trainer.args.gradient_accumulation_steps * model_trainer.args.train_batch_size
    size *= model_trainer.args.world_size
    steps_per_epoch = -(-len(sampler) // size)
    epoch, step = divmod(state.global_step - 1, steps_per_epoch)
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)
    return list(sampler)[step * size : (step + 1) * size]


def _is_last(checkpoint):
    state = files.read_json(checkpoint / STATE)
    return state["global_step"] >= state["max_steps"]


def _numbers(step):
    """A step's log without what changes from run to run (times) or starts anew when resumed (TRL's count)."""
    return {
        name: value for name, value in step.items() if not name.startswith("train_") and name != "num_tokens"
    }


def _lock(path):
    """Wait until no other process trains under this key: the orphan of a killed run may still be at it."""
    if path in _locks:
        return
    lock = open(path, "w")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another process that holds {path}", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    _locks[path] = lock


def _remove(folder, keep):
    for checkpoint in Path(folder).glob("checkpoint-*"):
        if checkpoint != keep:
            shutil.rmtree(checkpoint)


@contextlib.contextmanager
def _sigterm(watch):
    """Within, SIGTERM (scancel, a time limit, preemption) ends the training after the step at hand."""

    def handle(*_):
        watch.signalled = True

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

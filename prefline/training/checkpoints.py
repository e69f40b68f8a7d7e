"""The training loop's safety net: checkpoints that are whole, resuming, SIGTERM, losses that are not finite.

Hugging Face's Trainer writes a checkpoint file by file, so a killed one leaves a folder that looks finished.
Here a marker follows the last file; folders without it are deleted, older checkpoints only once it stands. A
resumed training sees the same rows in the same order with the same random numbers as an undisturbed one,
and on a CPU in float32 ends in the same bits. So it does where held-out losses decide: they stand in the
checkpoint's log, from which alone it follows which step was the best and whether it is time to stop.
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

from prefline import files
from prefline.errors import UNWRITABLE, InputError
from prefline.machine.durations import clock
from prefline.training import early_stopping, sharding, trackers, trainer, utilization

MARKER = "COMPLETE"
STATE = "trainer_state.json"
TERMINATED = 128 + signal.SIGTERM
ROWS_NAMED = 16

_locks = {}  # by path; held until the process ends: the script still writes what it has trained


def fit(model_trainer, args, key, rows, evaluate):
    """See trainer.fit."""
    folder = Path(args.work_dir) / key
    folder.mkdir(parents=True, exist_ok=True)
    if trainer.is_main():
        _lock(folder.with_suffix(".lock"))
        _remove(folder, args, keep=_to_go_on_from(folder, args))
    model_trainer.accelerator.wait_for_everyone()
    model_trainer.args.output_dir = str(folder)
    model_trainer.remove_callback(PrinterCallback)
    checkpoint = _to_go_on_from(folder, args)
    before = 0.0
    if checkpoint:
        marker = files.read_json(checkpoint / MARKER)
        sharding.check_written(checkpoint, marker["written"])
        before = marker["seconds"]
    per_token = utilization.flops_per_token(model_trainer.model)
    watch = Watch(model_trainer, args, rows, evaluate, before)
    model_trainer.add_callback(watch)
    model_trainer._save_checkpoint = watch.keeping_the_last(model_trainer._save_checkpoint)
    # Devices that draw the same numbers would say the same to a prompt that several of them have.
    set_seed(model_trainer.args.seed + model_trainer.args.process_index)
    with _sigterm(watch), _reporting(watch, key, checkpoint):
        if checkpoint and _is_last(checkpoint, args):
            # Asked to resume after its last step, Trainer would take one more in a broken-off epoch.
            model_trainer.state = TrainerState.load_from_json(str(checkpoint / STATE))
            if sharding.name() is None:
                model_trainer._load_from_checkpoint(str(checkpoint))
            else:
                loader = model_trainer.get_train_dataloader()
                model_trainer._prepare_for_training(model_trainer.state.max_steps, loader, str(checkpoint))
        else:
            model_trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if watch.terminated:
        print(f"stopped by SIGTERM at step {model_trainer.state.global_step}; the checkpoint is in {folder}")
        sys.exit(TERMINATED)
    history = [step for step in map(_numbers, model_trainer.state.log_history) if "loss" in step]
    evaluated = early_stopping.outcome(vars(args), history)
    if args.checkpoint == "best" and evaluated["saved_step"] != history[-1]["step"]:
        model_trainer.state.best_model_checkpoint = str(folder / f"checkpoint-{evaluated['saved_step']}")
        model_trainer._load_best_model()
    if trainer.is_main():
        trainer.write_log(args.log_csv, history)
    tokens, seconds = model_trainer.state.num_input_tokens_seen, watch.seconds()
    return {
        "train_loss": math.fsum(step["loss"] for step in history) / len(history),
        "train_steps": len(history),
        "train_tokens": tokens,
        "train_runtime": round(seconds, 3),
        "train_tokens_per_second": round(tokens / seconds, 1),
        "train_mfu": utilization.mfu(tokens / seconds, per_token, trainer.world_size(), args.dtype),
        **evaluated,
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

    def __init__(self, model_trainer, args, rows, evaluate, seconds_before):
        self.trainer = model_trainer
        self.flags = args
        self.rows = rows
        self.evaluate = evaluate
        self.reports = None  # where somebody may watch, in the process that writes
        self.seconds_before = seconds_before
        self.started = time.monotonic()
        self.signalled = False
        self.terminated = False
        self.first = 0, 0  # step and tokens that this process began after

    def seconds(self):
        """Seconds of training, those before the checkpoint that this process went on from included."""
        return self.seconds_before + time.monotonic() - self.started

    def on_train_begin(self, args, state, control, **kwargs):
        self.first = state.global_step, state.num_input_tokens_seen
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
        if self.flags.eval_steps and (step % self.flags.eval_steps == 0 or step == last):
            self._look(state, control)
        if self.reports is not None:
            self.reports.write(step, _numbers(state.log_history[-1]))
        if trainer.is_main() and (step % trainer.log_steps(last) == 0 or step == last):
            print(
                f"step {step}/{last}  {self._pace(state)}  epoch {state.epoch:.2f}  loss {logs['loss']:.4f}  "
                f"learning rate {logs['learning_rate']:.2e}",
                flush=True,
            )

    def _pace(self, state):
        """How fast this process trains, and how long it still will: "5210 tokens/s, 0:01:20 left"."""
        seconds = time.monotonic() - self.started
        steps, tokens = state.global_step - self.first[0], state.num_input_tokens_seen - self.first[1]
        rate = f"{tokens / seconds:.0f} tokens/s, " if tokens else ""  # TRL's trainers count none here
        return f"{rate}{clock(seconds / steps * (state.max_steps - state.global_step))} left"

    def on_step_end(self, args, state, control, **kwargs):
        # Every process must stop after the same step: they ask each other whether one was signalled.
        if self.signalled:
            self.trainer.accelerator.set_trigger()
        if self.trainer.accelerator.check_trigger():
            self.terminated = True
            control.should_save = True
            control.should_training_stop = True

    def keeping_the_last(self, save):
        """`save`, which writes a checkpoint; the one before is kept until this is whole.

        Where the disk is full, what was written is taken away, and OSError says it in one sentence. Torch
        does not say why it could not write a file: the system does, asked once more.
        """

        def saved(*args, **kwargs):
            folder = Path(self.trainer.args.output_dir)
            try:
                save(*args, **kwargs)
                self.trainer.accelerator.wait_for_everyone()
                if trainer.is_main():
                    self._complete(folder / f"checkpoint-{self.trainer.state.global_step}")
                # Where one process leaves early, Slurm ends those on other nodes.
                self.trainer.accelerator.wait_for_everyone()
            except Exception as error:
                said = next((words for words in UNWRITABLE if words in str(error)), None) or _refusal(folder)
                if said is None:
                    raise
                kept = last_complete(folder)
                for checkpoint in folder.glob("checkpoint-*"):
                    if not (checkpoint / MARKER).exists():
                        shutil.rmtree(checkpoint, ignore_errors=True)
                raise OSError(
                    f"{folder}: {said} while a checkpoint was written; the last good one is "
                    f"{kept.name if kept else 'none: it was the first'}"
                ) from error

        return saved

    def _complete(self, checkpoint):
        """Flush a checkpoint's files to the disk, mark it as whole, and delete those before it."""
        for member in checkpoint.rglob("*"):
            if member.is_file():
                with open(member, "rb") as written:
                    os.fsync(written.fileno())
        files.write_json(
            checkpoint / MARKER, {"seconds": round(self.seconds(), 3), "written": sharding.written()}
        )
        _remove(checkpoint.parent, self.flags, keep=checkpoint)

    def _look(self, state, control):
        """Evaluate the held-out data; it takes no random numbers, and its time is not the training's."""
        began, training = time.monotonic(), self.trainer.model.training
        held_out = self.evaluate()
        self.trainer.model.train(training)
        self.started += time.monotonic() - began
        if not math.isfinite(held_out["loss"]):
            raise InputError(
                f"the held-out loss became {held_out['loss']} at step {state.global_step} of "
                f"{state.max_steps}; lower learning_rate, or look at the held-out data"
            )
        history = state.log_history
        history[-1].update({f"eval_{name}": value for name, value in held_out.items()})
        best = early_stopping.best_step(history) == state.global_step
        control.should_save |= best and self.flags.checkpoint == "best"
        control.should_training_stop |= early_stopping.is_time_to_stop(
            history, self.flags.early_stopping_patience
        )
        print(
            f"step {state.global_step}: held-out loss {held_out['loss']:.4g}{', the lowest so far' * best}",
            flush=True,
        )

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


def _to_go_on_from(folder, args):
    """The last complete checkpoint, unless the best, which the end may need, was deleted: then None."""
    checkpoint = last_complete(folder)
    if checkpoint is None or all((path / MARKER).exists() for path in _needed(checkpoint, args)):
        return checkpoint
    return None


def _needed(checkpoint, args):
    """Paths of a checkpoint and, where it counts, of the best one until then."""
    needed = [checkpoint]
    if args.checkpoint == "best":
        best = early_stopping.best_step(files.read_json(checkpoint / STATE)["log_history"])
        needed += [] if best is None else [checkpoint.with_name(f"checkpoint-{best}")]
    return needed


def _is_last(checkpoint, args):
    state = files.read_json(checkpoint / STATE)
    stopped = early_stopping.is_time_to_stop(state["log_history"], args.early_stopping_patience)
    return stopped or state["global_step"] >= state["max_steps"]


def _refusal(folder):
    """What the system says (str) when a megabyte is to be written in `folder`; None where it is written."""
    probe = folder / "probe"
    try:
        with open(probe, "wb") as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror
    finally:
        probe.unlink(missing_ok=True)


def _numbers(step):
    """A step's log without what changes from run to run (times) or starts anew when resumed (TRL's count)."""
    return {
        name: value for name, value in step.items() if not name.startswith("train_") and name != "num_tokens"
    }


def _lock(path):
    """Wait until no other process trains under this key: the orphan of a killed run may still be at it.

    A network file system may have no such locks (Lustre without `flock`): a line says so, and nobody waits.
    """
    if path in _locks:
        return
    lock = open(path, "w")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another process that holds {path}", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        print(f"{path}: cannot be locked here ({error.strerror}); going on without", flush=True)
        lock.close()
        return
    _locks[path] = lock


def _remove(folder, args, keep):
    """Delete all checkpoints but `keep` (a path, or None) and the best one until then, if that is needed."""
    kept = [] if keep is None else _needed(keep, args)
    for checkpoint in Path(folder).glob("checkpoint-*"):
        if checkpoint not in kept:
            shutil.rmtree(checkpoint)


@contextlib.contextmanager
def _reporting(watch, key, checkpoint):
    """Within, the steps after `checkpoint` (a path, or None) are reported where they can be watched."""
    if trainer.is_main():
        step = files.read_json(checkpoint / STATE)["global_step"] if checkpoint else 0
        watch.reports = trackers.Reports(watch.flags, key, step, trainer.params(watch.flags))
    try:
        yield
    finally:
        if watch.reports is not None:
            watch.reports.close()


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

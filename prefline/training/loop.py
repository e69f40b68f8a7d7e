"""The training loop: resumed where it was interrupted, stopped by SIGTERM, refused where it is not finite.

A resumed training sees the same rows in the same order with the same random numbers as an undisturbed one,
and on a CPU in float32 ends in the same bits. So it does where held-out losses decide: they are in the
checkpoint's log, from which alone it follows which step was the best and whether it is time to stop.
"""

import contextlib
import math
import resource
import signal
import sys
import time
from pathlib import Path

import torch
from transformers import PrinterCallback, TrainerCallback, TrainerState, set_seed

from prefline import files
from prefline.errors import InputError
from prefline.machine.durations import clock
from prefline.training import (
    checkpoints,
    early_stopping,
    log,
    process,
    sharding,
    trackers,
    utilization,
)

TERMINATED = 128 + signal.SIGTERM
ROWS_NAMED = 16


def fit(trainer, settings, key, rows, evaluate):
    """Train, from the last complete checkpoint if there is one; return what is to know of it.

    trainer: transformers.Trainer (or a subclass) with the TrainingArguments that `arguments.make` makes of
    settings, the training's Settings; key: str from `results.work_key`; rows: list of str, a name for each
    row of trainer.train_dataset, used when a loss goes wrong; evaluate: function without arguments that gives
    means over the held-out data, a dict of float with `loss`. Every settings.eval_steps steps, and after the
    last, these become columns eval_* of settings.log_csv; they decide which weights the trainer's model has
    in the end (settings.checkpoint) and whether it is stopped early. Whatever the trainer logs for each step
    (`Trainer.log`) becomes a column of settings.log_csv.

    Returns {"train_loss": mean over all steps, "train_steps", "train_tokens", "train_runtime": seconds of the
    steps that counted, "train_tokens_per_second", "train_mfu" (utilization.py), "peak_memory_mb", on a GPU
    also "peak_gpu_memory_mb"}; with settings.eval_steps also "best_eval_loss", "best_step", "saved_step" and
    "stopped_early".
    On SIGTERM it writes a checkpoint and exits with status 143. Raises InputError that names the step and its
    rows if a loss or a gradient is no longer finite, and OSError where a checkpoint cannot be written; the
    last good checkpoint stays.
    """
    sharding.prepare(trainer)
    folder = Path(settings.work_dir) / key
    checkpoints.claim(folder, settings)
    trainer.accelerator.wait_for_everyone()
    trainer.args.output_dir = str(folder)
    trainer.remove_callback(PrinterCallback)
    checkpoint = checkpoints.to_resume(folder, settings)
    before = 0.0
    if checkpoint:
        marker = files.read_json(checkpoint / checkpoints.MARKER)
        sharding.check_written(checkpoint, marker["written"])
        before = marker["seconds"]
    per_token = utilization.flops_per_token(trainer.model)
    watch = Watch(trainer, settings, rows, evaluate, before)
    trainer.add_callback(watch)
    trainer._save_checkpoint = checkpoints.keeping_the_last(trainer, settings, watch.seconds)
    # Devices that draw the same numbers would say the same to a prompt that several of them have.
    set_seed(trainer.args.seed + trainer.args.process_index)
    with _sigterm(watch), _reporting(watch, key, checkpoint):
        if checkpoint and checkpoints.is_last(checkpoint, settings):
            # Asked to resume after its last step, Trainer would take one more in a broken-off epoch.
            trainer.state = TrainerState.load_from_json(str(checkpoint / checkpoints.STATE))
            if sharding.name() is None:
                trainer._load_from_checkpoint(str(checkpoint))
            else:
                loader = trainer.get_train_dataloader()
                trainer._prepare_for_training(trainer.state.max_steps, loader, str(checkpoint))
        else:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if watch.terminated:
        print(f"stopped by SIGTERM at step {trainer.state.global_step}; the checkpoint is in {folder}")
        sys.exit(TERMINATED)
    history = [step for step in map(_numbers, trainer.state.log_history) if "loss" in step]
    evaluated = early_stopping.outcome(vars(settings), history)
    if settings.checkpoint == "best" and evaluated["saved_step"] != history[-1]["step"]:
        trainer.state.best_model_checkpoint = str(folder / f"checkpoint-{evaluated['saved_step']}")
        trainer._load_best_model()
    if process.is_main():
        log.write(settings.log_csv, history)
    tokens, seconds = trainer.state.num_input_tokens_seen, watch.seconds()
    return {
        "train_loss": math.fsum(step["loss"] for step in history) / len(history),
        "train_steps": len(history),
        "train_tokens": tokens,
        "train_runtime": round(seconds, 3),
        "train_tokens_per_second": round(tokens / seconds, 1),
        "train_mfu": utilization.mfu(tokens / seconds, per_token, process.world_size(), settings.dtype),
        **evaluated,
        **peak_memory(),
    }


def peak_memory():
    """Return most memory that this process has held so far, in MB (10⁶ bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 10**6}
    if torch.cuda.is_available():
        peak["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() // 10**6
    return peak


class Watch(TrainerCallback):
    """Check after each step that the loss is finite, no stop is requested, and checkpoints are whole."""

    def __init__(self, trainer, settings, rows, evaluate, seconds_before):
        self.trainer = trainer
        self.settings = settings
        self.rows = rows
        self.evaluate = evaluate
        self.reports = None  # where somebody may watch, in the process that writes
        self.seconds_before = seconds_before
        self.started = time.monotonic()
        self.signalled = False
        self.terminated = False
        self.first = 0, 0  # step and tokens that this process began after

    def seconds(self):
        """Return the seconds of training, those before a resumed checkpoint included."""
        return self.seconds_before + time.monotonic() - self.started

    def on_train_begin(self, args, state, control, **kwargs):
        self.first = state.global_step, state.num_input_tokens_seen
        if state.global_step:
            print(f"resuming after step {state.global_step} of {state.max_steps}", flush=True)
        self.started = time.monotonic()

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" not in logs:
            return
        for name, meaning in (("loss", "loss"), ("grad_norm", "norm of the gradient")):
            if not math.isfinite(logs.get(name, 0.0)):
                raise InputError(self._complaint(meaning, logs[name], state, kwargs["train_dataloader"]))
        step, last = state.global_step, state.max_steps
        if self.settings.eval_steps and (step % self.settings.eval_steps == 0 or step == last):
            self._look(state, control)
        if self.reports is not None:
            self.reports.write(step, _numbers(state.log_history[-1]))
        if process.is_main() and (step % log.steps_per_row(last) == 0 or step == last):
            print(
                f"step {step}/{last}  {self._pace(state)}  epoch {state.epoch:.2f}  loss {logs['loss']:.4f}  "
                f"learning rate {logs['learning_rate']:.2e}",
                flush=True,
            )

    def _pace(self, state):
        """Return this process's speed and remaining time: "5210 tokens/s, 0:01:20 left"."""
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

    def _look(self, state, control):
        """Evaluate the held-out data; it takes no random numbers, and its time is not the training's."""
        began, training = time.monotonic(), self.trainer.model.training
        held_out = self.evaluate()
        self.trainer.model.train(training)
        self.started += time.monotonic() - began
        if not math.isfinite(held_out["loss"]):
            raise InputError(
                f"the held-out loss became {held_out['loss']} at step {state.global_step} of "
                f"{state.max_steps}; lower learning_rate, or check the held-out data"
            )
        history = state.log_history
        history[-1].update({f"eval_{name}": value for name, value in held_out.items()})
        best = early_stopping.best_step(history) == state.global_step
        control.should_save |= best and self.settings.checkpoint == "best"
        control.should_training_stop |= early_stopping.is_time_to_stop(
            history, self.settings.early_stopping_patience
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
        kept = checkpoints.last_complete(self.trainer.args.output_dir)
        return (
            f"the {meaning} became {value} at step {state.global_step} of {state.max_steps} (epoch "
            f"{state.epoch:.2f}), in the batch of {', '.join(named[:ROWS_NAMED])}{more}; check these rows, "
            f"or lower learning_rate; the last good checkpoint is {kept or 'none: it was the beginning'}"
        )


def rows_of_step(trainer, state, dataloader):
    """Return numbers (list of int) of the rows of train_dataset that the step just taken was made of."""
    sampler = dataloader.batch_sampler
    while not hasattr(sampler, "sampler"):
        sampler = sampler.batch_sampler
    sampler = sampler.sampler
    size = trainer.args.gradient_accumulation_steps * trainer.args.train_batch_size
    size *= trainer.args.world_size
    steps_per_epoch = -(-len(sampler) // size)
    epoch, step = divmod(state.global_step - 1, steps_per_epoch)
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)
    return list(sampler)[step * size : (step + 1) * size]


def _numbers(step):
    """Return a step's log without times, which vary, and TRL's count, which restarts when resumed."""
    return {
        name: value for name, value in step.items() if not name.startswith("train_") and name != "num_tokens"
    }


@contextlib.contextmanager
def _reporting(watch, key, checkpoint):
    """Report, in this context, the steps after `checkpoint` (a path, or None) to the trackers."""
    if process.is_main():
        step = files.read_json(checkpoint / checkpoints.STATE)["global_step"] if checkpoint else 0
        watch.reports = trackers.Reports(watch.settings, key, step)
    try:
        yield
    finally:
        if watch.reports is not None:
            watch.reports.close()


@contextlib.contextmanager
def _sigterm(watch):
    """Make SIGTERM (scancel, a time limit, preemption) end the training after the current step."""

    def handle(*_):
        watch.signalled = True

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

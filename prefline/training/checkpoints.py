"""Checkpoints that are whole: a marker follows the last file, and the one before stays until it is there.

Hugging Face's Trainer writes a checkpoint file by file, so a killed one leaves a folder that looks finished.
Folders without the marker are deleted, older checkpoints only once it is there; the best one by held-out loss
stays where the settings need it.
"""

import fcntl
import os
import shutil
from pathlib import Path

from prefline import files
from prefline.errors import UNWRITABLE
from prefline.training import early_stopping, process, sharding

MARKER = "COMPLETE"
STATE = "trainer_state.json"

_locks = {}  # by path; held until the process ends: the script still writes what it has trained


def claim(folder, settings):
    """Wait until no other process trains in `folder`, and delete what a killed one has left half written."""
    folder.mkdir(parents=True, exist_ok=True)
    if process.is_main():
        _lock(folder.with_suffix(".lock"))
        _remove(folder, settings, keep=to_resume(folder, settings))


def last_complete(folder):
    """Return the checkpoint (Path) with the most steps that was written to its end; None if there is none."""
    whole = [marker.parent for marker in Path(folder).glob(f"checkpoint-*/{MARKER}")]
    return max(whole, key=lambda checkpoint: int(checkpoint.name.rsplit("-", 1)[1]), default=None)


def to_resume(folder, settings):
    """Return the last complete checkpoint (Path); None if the best, which the end may need, was deleted."""
    checkpoint = last_complete(folder)
    if checkpoint is None or all((path / MARKER).exists() for path in _needed(checkpoint, settings)):
        return checkpoint
    return None


def is_last(checkpoint, settings):
    """Tell whether a checkpoint is that of the training's last step."""
    state = files.read_json(checkpoint / STATE)
    stopped = early_stopping.is_time_to_stop(state["log_history"], settings.early_stopping_patience)
    return stopped or state["global_step"] >= state["max_steps"]


def keeping_the_last(trainer, settings, seconds):
    """Return a function that writes a trainer's checkpoint; the one before is kept until this is whole.

    It is for trainer._save_checkpoint, which it calls. seconds: function that gives those of the training so
    far. If the disk is full, the partial checkpoint is removed, and an OSError names the reason. Torch does
    not report why it could not write a file, so a small file is written to get the system's error.
    """
    save = trainer._save_checkpoint

    def saved(*args, **kwargs):
        folder = Path(trainer.args.output_dir)
        try:
            save(*args, **kwargs)
            trainer.accelerator.wait_for_everyone()
            if process.is_main():
                _complete(folder / f"checkpoint-{trainer.state.global_step}", settings, seconds())
            # Where one process leaves early, Slurm ends those on other nodes.
            trainer.accelerator.wait_for_everyone()
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


def _complete(checkpoint, settings, seconds):
    """Flush a checkpoint's files to the disk, mark it as whole, and delete those before it."""
    for member in checkpoint.rglob("*"):
        if member.is_file():
            with open(member, "rb") as written:
                os.fsync(written.fileno())
    files.write_json(checkpoint / MARKER, {"seconds": round(seconds, 3), "written": sharding.written()})
    _remove(checkpoint.parent, settings, keep=checkpoint)


def _needed(checkpoint, settings):
    """Return paths of a checkpoint and, where it counts, of the best one until then."""
    needed = [checkpoint]
    if settings.checkpoint == "best":
        best = early_stopping.best_step(files.read_json(checkpoint / STATE)["log_history"])
        needed += [] if best is None else [checkpoint.with_name(f"checkpoint-{best}")]
    return needed


def _remove(folder, settings, keep):
    """Delete all checkpoints but `keep` (a path, or None) and the best one until then, if that is needed."""
    kept = [] if keep is None else _needed(keep, settings)
    for checkpoint in Path(folder).glob("checkpoint-*"):
        if checkpoint not in kept:
            shutil.rmtree(checkpoint)


def _refusal(folder):
    """Return the system's error (str) for writing a megabyte in `folder`; None if it can be written."""
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


def _lock(path):
    """Wait until no other process trains under this key: the orphan of a killed run may still be at it.

    A network file system may have no such locks (Lustre without `flock`): then a line is logged, and no
    process waits.
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
        print(f"{path}: cannot be locked here ({error.strerror}); continuing without a lock", flush=True)
        lock.close()
        return
    _locks[path] = lock

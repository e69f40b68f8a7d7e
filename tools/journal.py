"""List and prune what work/ keeps so that nothing is made twice: journals of finished rows, and trainings.

Everything in work/ may be deleted at any time, while jobs run, too: what is missing is made again. Verdicts
of judges on servers are then paid for again. `prune` leaves a training that runs alone, and what endpoints
have spent of their budgets.

    python -m tools.journal list
    python -m tools.journal prune --older-than 30                      # what was not used for 30 days
    python -m tools.journal prune --older-than 0 --kind completions    # all of one kind
"""

import fcntl
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from prefline import files
from prefline.config import section
from prefline.errors import InputError, run
from prefline.provenance import journal
from prefline.training import cache

WORK = Path("work")
DAY = 24 * 60 * 60


class Entry(NamedTuple):
    """A folder of work/: the journal of one context, or one training."""

    folder: Path
    kind: str  # of the journal, or the training's rule
    about: str
    rows: int | None  # None: a training
    size: int  # bytes, those that are hard links to an artifact's included
    used: float  # when it was last written or read, in seconds since the epoch


def entries(work):
    """Return the Entry of every journal and every training in the folder `work`, the last used first."""
    found = [_journal(folder) for folder in work.glob("journal/*/*/")]
    trainings = [
        folder
        for folder in work.glob("*/*/")
        if folder.parent.name != "journal" and folder.name != "tensorboard"  # event files of all of them
    ]
    found += map(_training, trainings)
    return sorted(filter(None, found), key=lambda entry: (-entry.used, entry.folder))


def table(found, now):
    """Return the lines (list of str) that describe the entries `found` at the time `now`."""
    rows = [("kind", "key", "rows", "MB", "days unused", "of")]
    for entry in found:
        number = "" if entry.rows is None else f"{entry.rows}"
        days = f"{max(0.0, now - entry.used) / DAY:.1f}"
        rows.append((entry.kind, entry.folder.name[:8], number, f"{entry.size / 1e6:.2f}", days, entry.about))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = (2, 3, 4)
    return [
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def prune(found, older_than, kind, now):
    """Delete the entries of `kind` (None: of all) that were not used for `older_than` days; return them."""
    pruned = []
    for entry in found:
        if kind not in (None, entry.kind) or now - entry.used < older_than * DAY:
            continue
        if _runs(entry.folder):
            print(f"{entry.folder}: this training runs, and is left alone")
            continue
        shutil.rmtree(entry.folder, ignore_errors=True)
        pruned.append(entry)
    return pruned


def _journal(folder):
    try:
        described = files.read_json(folder / journal.CONTEXT)
        about = f"{described['context']['script']}, {described['about']}"
    except (OSError, ValueError, KeyError):
        about = f"{journal.CONTEXT} cannot be read"
    rows = 0
    for path in folder.glob("*.jsonl"):
        try:
            with open(path, "rb") as file:
                rows += sum(1 for _ in file)
        except FileNotFoundError:  # deleted by now
            continue
    return _entry(folder, about, rows)


def _training(folder):
    try:
        about = files.read_json(folder / cache.RESULT / cache.RECORD)["about"]
    except FileNotFoundError:
        about = "not finished"
    except (OSError, ValueError, KeyError):
        about = f"{cache.RECORD} cannot be read"
    return _entry(folder, about, None)


def _entry(folder, about, rows):
    """Return the Entry; None for an empty folder."""
    sizes, times = [], []
    for path in folder.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:  # deleted by now
            continue
        if path.is_file():
            sizes.append(status.st_size)
            times.append(status.st_mtime)
    return Entry(folder, folder.parent.name, about, rows, sum(sizes), max(times)) if sizes else None


def _runs(folder):
    """Return whether a training holds the lock of its folder: see checkpoints.fit."""
    try:
        with open(folder.with_suffix(".lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def main(argv=None):
    parser = section.parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what there is, the last used first")
    pruning = commands.add_parser("prune", help="delete what was not used for a time")
    pruning.add_argument("--older-than", type=float, required=True, metavar="DAYS", help="0: all")
    pruning.add_argument("--kind", help="only this kind, as `list` names it")
    args = parser.parse_args(argv)

    found, now = entries(WORK), time.time()
    if args.command == "list":
        print("\n".join(table(found, now)))
        return
    kinds = sorted({entry.kind for entry in found})
    if args.kind is not None and args.kind not in kinds:
        raise InputError(f"{WORK}: keeps no kind {args.kind!r}, only {', '.join(kinds) or 'nothing'}")
    pruned = prune(found, args.older_than, args.kind, now)
    print(f"{len(pruned)} deleted, {sum(entry.size for entry in pruned) / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)

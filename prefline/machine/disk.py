"""Compare the disk space that planned jobs take with what is free, before the first one starts.

The estimate is a lower one: models that jobs fetch, train and merge, one checkpoint of the largest training,
and a quarter of the tokens that completions may have. Models of the hub count when their size is known.

    needs = disk.needed(config, planned)    planned: Jobs
    sentence = disk.trouble(needs)          None if all fits
"""

import shutil
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from prefline.machine import derived

GB = 1e9
SCRATCH = 10e6  # bytes in TMPDIR: servers' logs, sandboxes
TOKEN = 4  # bytes of a token's id


class Job(NamedTuple):
    """A planned job that writes much.

    does: fetch, train, merge or generate; name: of the model that it makes, or whose completions; trains: as
    in derived.resources.
    """

    does: str
    name: str
    trains: tuple | None = None


def needed(config, planned):
    """Return {folder: {what: bytes}} that planned Jobs write at least."""
    results, checkpoints = Counter(), [0]
    for job in planned:
        if job.does == "generate":
            results["completions"] += _completions(config)
            continue
        try:
            size = derived.size_of(config, job.name)
        except derived.NotFetched:
            continue
        if size is None:
            continue
        if job.does == "fetch":
            results["models"] += _fetched(config["models"][job.name]["source"], size)
            continue
        keys = job.trains[1]
        adapters = keys["peft"] if job.does == "train" else None
        written = size.parameters if adapters is None else size.adapters(adapters)
        results["models"] += written * (2 if keys["dtype"] == "bfloat16" else 4)
        if job.does == "train":
            checkpoints.append(written * (4 + _moments(keys["optim"])))
    found = {
        "results": dict(results),
        "work": {"checkpoints": max(checkpoints), "completions": results["completions"]},
        tempfile.gettempdir(): {"temporary files": SCRATCH},
    }
    return {folder: {what: size for what, size in of.items() if size} for folder, of in found.items()}


def _completions(config):
    """Return the bytes of the completions of a shard."""
    rows = config["prompts"]["shard_size"] * config["generate"]["num_completions"]
    return rows * config["generate"]["max_tokens"] * TOKEN / 4


def _fetched(source, size):
    """Return the bytes that a fetched model takes: none if its files can be linked."""
    if source.startswith("hub:"):
        return size.stored_bytes
    weights = list(Path(source).glob("*.safetensors"))
    linked = all(path.stat().st_dev == _existing(Path("results")).stat().st_dev for path in weights)
    return 0 if linked else sum(path.stat().st_size for path in weights)


def _moments(optim):
    """Return the bytes of the optimizer's state in a checkpoint, for each trained parameter."""
    return 0 if "adam" not in optim else 2 if "8bit" in optim else 8


def trouble(needs):
    """Return that disks have less space than jobs need, as a sentence; None if they have enough.

    needs: as `needed` gives them.
    """
    folders = defaultdict(list)
    for folder, sizes in needs.items():
        if sizes:
            folders[_existing(Path(folder)).stat().st_dev].append(folder)
    said = []
    for together in folders.values():
        sizes = Counter()
        for folder in together:
            sizes.update(needs[folder])
        total, free = sum(sizes.values()), shutil.disk_usage(_existing(Path(together[0]))).free
        if total > free:
            parts = ", ".join(f"{what} {_gb(size)}" for what, size in sizes.most_common())
            names = " and ".join(f"{folder}/" for folder in together)
            said.append(
                f"the disk of {names} has {_gb(free)} GB free, and the planned jobs write at least "
                f"{_gb(total)} ({parts}); free {_gb(total - free)} GB there, or {_way_out(together)}"
            )
    return "\n".join(said) or None


def _way_out(together):
    """Return what to do about full disks with some folders."""
    if "results" not in together and "work" not in together:
        return "set TMPDIR to a folder of another disk"
    return "move the project to a larger disk; `python -m tools.journal prune --older-than 30` clears work/"


def _existing(path):
    """Return a path, or its nearest parent that exists."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())


def _gb(size):
    """Return bytes as GB (str)."""
    return f"{size / GB:.0f}" if size >= 10 * GB else f"{size / GB:.2g}"

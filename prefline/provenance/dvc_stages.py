"""Read from dvc.yaml which files its stages keep, and which files DVC watches for changes."""

from pathlib import Path

import yaml

from prefline import files
from prefline.errors import InputError

FILE = Path("dvc.yaml")


def outs():
    """Return the paths (set of str) that DVC keeps."""
    return {out for stage in _stages() for outs in stage["outs"] for out in outs}


def stored():
    """Return the paths (set of str) of results that DVC's cache on this machine has, by dvc.lock."""
    from dvc.repo import Repo

    found, lock = set(), Path("dvc.lock")
    if not lock.exists():
        return found
    with Repo() as repo:
        cache = Path(repo.cache.local.path)
    for stage in yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"].values():
        for out in stage["outs"]:
            entry = cache / out["md5"][:2] / out["md5"][2:]
            if not entry.exists():
                continue
            members = files.read_json(entry) if entry.suffix == ".dir" else [{"relpath": "", "md5": ""}]
            for one in members:
                if not one["md5"] or (cache / one["md5"][:2] / one["md5"][2:]).exists():
                    found.add(str(Path(out["path"], one["relpath"])))
    return found


def make_folders(is_output):
    """Make the folders that DVC keeps: `dvc commit` wants that of adapters even without any.

    Leaves out those that a rule makes, such as results/metrics: an empty one would have no record.
    is_output: a function that tells whether a path (str) is the output of some rule.
    """
    for out in outs():
        if not Path(out).suffix and not is_output(out):
            Path(out).mkdir(parents=True, exist_ok=True)


def check_seen(read):
    """Raise InputError for files that jobs read, outside results/, whose changes DVC would not see.

    read: paths (iterable of str).
    """
    for stage in _stages():
        seen = {Path(path) for path in stage["deps"]}
        unseen = sorted({path for path in read if not _is_seen(Path(path), seen)})
        if unseen:
            named = ", ".join(unseen[:3]) + (f" and {len(unseen) - 3} more" if len(unseen) > 3 else "")
            raise InputError(
                f"DVC would not see changes of {named}; add the file or its folder to the deps of each stage "
                f"in {FILE}, or keep it under data/"
            )


def _is_seen(path, seen):
    """Return whether a path is one of `seen` or below one; DVC follows no link to a folder in these."""
    below = []
    for part in (path, *path.parents):
        if part in seen:
            return not any(folder.is_symlink() for folder in below if folder != path)
        below.append(part)
    return path.is_relative_to("results")


def _stages():
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))["stages"].values()

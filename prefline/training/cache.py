"""Results of finished trainings, kept in work/{rule}/{key}/result/: going back to a config trains nothing.

Where the file system can, the kept files are hard links to the artifacts: a copy takes no room until the
artifact is replaced. The project replaces files by renaming, never in place; who edits an artifact in place
edits the kept file, too, so every file has its sha256 and a damaged one is never handed out.
"""

import contextlib
import os
import shutil
from pathlib import Path

from prefline import files
from prefline.provenance import manifest

RESULT = "result"
RECORD = "result.json"


def keep(folder, directory, others):
    """Keep the finished model `directory` and the files `others` (dict from a name to a path) in `folder`.

    A disk that is full is said and costs only what would have been kept.
    """
    result = Path(folder) / RESULT
    try:
        with files.atomic_directory(result) as temporary:
            _link_tree(Path(directory), temporary / "model")
            hashes = {f"model/{name}": value for name, value in manifest.contents(directory).items()}
            for name, path in others.items():
                _link(Path(path), temporary / name)
                hashes[name] = files.sha256(path)
            files.write_json(temporary / RECORD, {"about": str(directory), "files": hashes})
    except OSError as error:
        print(f"{result}: {error.strerror}; the results are complete, but not cached", flush=True)


def whole(folder):
    """Return {path: sha256} of what `folder` keeps; None if that is nothing, or damaged, which is said."""
    result = Path(folder) / RESULT
    if not (result / RECORD).is_file():
        return None
    found = manifest.hashes_of(result)
    del found[RECORD]
    try:
        wanted = files.read_json(result / RECORD)["files"]
    except (ValueError, KeyError):
        wanted = {RECORD: None}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            print(f"{result / name}: differs from the cached file; training again", flush=True)
            return None
    return found


def restore(folder, directory, others):
    """Put the kept model to `directory`, and the others to their paths (dict from a name to a path)."""
    result = Path(folder) / RESULT
    with files.atomic_directory(directory) as temporary:
        _link_tree(result / "model", temporary)
    for name, path in others.items():
        with files.atomic(path) as temporary:
            _link(result / name, temporary)
    with contextlib.suppress(OSError):
        os.utime(result / RECORD)


def _link_tree(source, target):
    for member in source.rglob("*"):
        if member.is_file():
            copy = target / member.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            _link(member, copy)


def _link(source, target):
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)

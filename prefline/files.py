"""Files and directories that are whole or absent: written under a temporary name, then renamed."""

import contextlib
import csv
import difflib
import hashlib
import io
import json
import os
import shutil
from pathlib import Path


@contextlib.contextmanager
def atomic(path):
    """Yield a temporary path beside `path`; on success it is flushed to disk and becomes `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path):
    """Yield a new temporary directory beside `path`; on success it takes the place of `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path, text):
    with atomic(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


def write_json(path, value):
    """Write `value` as JSON with sorted keys, so that equal values are equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_jsonl(path, rows):
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def write_csv(path, columns, rows):
    """Write dicts as a table of these columns; other keys of a row are left out."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mistake(path, kind):
    """What is wrong (str) with a Path that should be a "file" or a "directory"; None if it is one."""
    if path.is_dir() if kind == "directory" else path.is_file():
        return None
    if path.exists():
        return f"{path} is no {kind}; name one"
    near = _nearest(path)
    hint = f"did you mean {near}?" if near else "correct the path, or put it there"
    return f"there is no {kind} {path} (seen from {Path.cwd()}); {hint}"


def _nearest(path):
    """The existing path (str) that `path` looks like a misspelling of, or None."""
    missing = next(part for part in (*reversed(path.parents), path) if not part.exists())
    names = []
    with contextlib.suppress(OSError):
        names = sorted(sibling.name for sibling in missing.parent.iterdir())
    for name in difflib.get_close_matches(missing.name, names):
        near = missing.with_name(name) / path.relative_to(missing)
        if near.exists():
            return str(near)
    return None

"""Journals of finished rows, so that no row is made twice: work/journal/{kind}/{key}/.

The key is a hash of the context: everything that shapes the rows of one kind, beside what each row is made
from. What a row is made from is hashed, too, and names it. So a row is found by whatever job needs it,
however rows are grouped into jobs, and an edit of anything that matters finds nothing. Pace (batch sizes) is
no part of a context: a row depends on the rows beside it up to the rounding of floats only.

Each process appends to a file of its own, so jobs side by side, on a network file system too, never share
one. A line is JSON, ["CHECKSUM", "KEY", value]: torn and garbled ones are seen, said and made again. Neither
Snakemake nor DVC knows of journals: any part may be deleted at any time, and a disk that is full costs the
journal, never the artifact.
"""

import contextlib
import hashlib
import json
import os
import secrets
import socket
import time
import zlib
from pathlib import Path

from prefline import files
from prefline.provenance import imports, manifest

CONTEXT = "context.json"
# Rows written survive the death of the process at once, that of the machine after this time.
SYNC_SECONDS = 2.0


def key(*parts):
    """Hexadecimal name (str of 32) of `parts`, which are str, numbers, None, and lists and dicts of them."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def context(script, model, packages, **settings):
    """What shapes all rows alike (dict): the code of `script` (its path), the model's files and more.

    model: directory, or None; packages: names of the Python packages that shape the rows; settings: values
    that do, such as those of the sampling.
    """
    return {
        "script": script,
        "code": imports.code_hash(script),
        "model": None if model is None else manifest.contents(model),
        "packages": manifest.packages(packages),
        "settings": settings,
    }


class Journal:
    """The finished rows of one kind and context."""

    def __init__(self, root, kind, context, about):
        """root: work/journal; kind: str; context: as `context` gives it; about: str, said to people only."""
        self.folder = Path(root) / kind / key(context)
        self.context = context
        self.about = str(about)
        self.file = None
        self.synced = time.monotonic()
        self.broken = False

    def rows(self, wanted, make):
        """The values (dict, by key) of the rows `wanted`: those in the journal, and those made now.

        wanted: dict from a row's key to what it is made from. make(missing): a generator that is given what
        the journal lacks of `wanted`, in its order, and yields finished rows as dicts from key to value,
        batch by batch; each is saved at once. It is not called if nothing is missing. Values are JSON:
        numbers are finite.
        """
        found = self._find(wanted)
        missing = {name: item for name, item in wanted.items() if name not in found}
        if found:
            print(f"{len(found)} of {len(wanted)} rows are in the journal {self.folder}", flush=True)
        if missing:
            for made in make(missing):
                self._append(made)
                found |= made
        return found

    def values(self):
        """Yield the values of all rows, whoever wanted them; of rows with one key, each once."""
        found = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            with contextlib.suppress(OSError):
                found |= _read(path, None)
        yield from found.values()

    def _find(self, wanted):
        names = {name.encode() for name in wanted}
        found = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            # Deleted by now, or a network's hiccup: its rows are made again.
            with contextlib.suppress(OSError):
                found |= _read(path, names)
        with contextlib.suppress(OSError):
            os.utime(self.folder / CONTEXT)
        return found

    def _append(self, rows):
        if self.broken:
            return
        data = memoryview(b"".join(_line(name, value) for name, value in rows.items()))
        try:
            if self.file is None:
                self._open()
            while data:
                data = data[os.write(self.file, data) :]
            if time.monotonic() > self.synced + SYNC_SECONDS:
                os.fsync(self.file)
                self.synced = time.monotonic()
        except OSError as error:
            self.broken = True
            print(
                f"{self.folder}: {error.strerror}; going on without the journal: an interruption will cost "
                "the rows made from here on",
                flush=True,
            )

    def _open(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / CONTEXT).exists():
            files.write_json(self.folder / CONTEXT, {"about": self.about, "context": self.context})
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self.file = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)


def _line(name, value):
    """A row as a line (bytes); the checksum is that of all that follows it."""
    rest = f'","{name}",{json.dumps(value, allow_nan=False)}]\n'.encode()
    return b'["%08x' % zlib.crc32(rest) + rest


def _read(path, names):
    """{key: value} of the rows in `path` whose key is among `names` (bytes), None for all.

    Says what is damaged.
    """
    found, damaged = {}, []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line[:10] != b'["%08x' % zlib.crc32(line[10:]):
                damaged.append(number)
            elif names is None or line[13:45] in names:
                found[line[13:45].decode()] = json.loads(line[47:-2])
    if damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        print(
            f"{path}, line {damaged[0]}{more}: damaged or cut off; made again where it is needed", flush=True
        )
    return found

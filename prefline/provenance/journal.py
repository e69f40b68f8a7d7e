"""Cache finished rows in journals, so that no row is computed twice: work/journal/{kind}/{key}/.

The key is a hash of the context: everything that changes the rows of one kind, apart from each row's
inputs. A row's name is a hash of its inputs. So any job that needs a row finds it, however rows are grouped
into jobs. After an edit that changes results, no old row is found. Batch sizes are not in the context: they
change a row only by the rounding of floats.

Each process appends to its own file, so parallel jobs never share one, also on a network file system. A
line is JSON, ["CHECKSUM", "KEY", value]: damaged lines are detected, reported and computed again. An index
(journal_index.py) has the places of rows, so that a job does not read the rows of others. Neither Snakemake
nor DVC reads journals: any part may be deleted at any time. A full disk ends the caching, not the job.
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
from prefline.provenance import imports, journal_index, manifest

CONTEXT = "context.json"
# Written rows survive a killed process at once, and a crash of the machine after this time.
SYNC_SECONDS = 2.0
# Lines that are not in the index are read by every job; more than so many bytes of them are put into it.
UNINDEXED_BYTES = 2**20


def key(*parts):
    """Return the hash (hex str of 32) of `parts`: str, numbers, None, and lists and dicts of them."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def context(script, model, packages, **settings):
    """Return the context of all rows (dict): the code of `script` (its path), the model's files and more.

    model: directory, or None; packages: names of the Python packages that change the rows; settings: values
    that change the rows, such as those of the sampling.
    """
    return {
        "script": script,
        "code": imports.code_hash(script),
        "model": None if model is None else manifest.contents(model),
        "packages": manifest.packages(packages),
        "settings": settings,
    }


class Unrecorded:
    """Makes all rows, where a Journal would find earlier ones."""

    @staticmethod
    def rows(wanted, make):
        return {key: value for made in make(wanted) for key, value in made.items()}


class Journal:
    """The finished rows of one kind and context."""

    def __init__(self, root, kind, context, about):
        """Open a journal. root: work/journal; kind: str; context: of `context`; about: str, for people."""
        self.folder = Path(root) / kind / key(context)
        self.context = context
        self.about = str(about)
        self.file = None
        self.synced = time.monotonic()
        self.broken = self.named = False

    def rows(self, wanted, make):
        """Return the values (dict, by key) of the rows `wanted`, from the journal or computed now.

        wanted: dict from a row's key to its inputs. make(missing): a generator function. It gets the part
        of `wanted` that the journal lacks, in the same order, and yields finished rows batch by batch, as
        dicts from key to value. Each batch is saved at once. `make` is not called if nothing is missing.
        Values are JSON, with finite numbers.
        """
        found = self._find(wanted)
        missing = {name: item for name, item in wanted.items() if name not in found}
        if found or not self.named:  # kept_jobs.py reads the folder from the log
            self.named = True
            print(f"{len(found)} of {len(wanted)} rows are in the journal {self.folder}", flush=True)
        if missing:
            for made in make(missing):
                self._append(made)
                found |= made
        return found

    def values(self):
        """Yield the values of all rows of all jobs, one for each key."""
        found = {}
        self._read({name: 0 for name in self._sizes()}, None, found)
        yield from found.values()

    def _find(self, wanted):
        names, found = {name.encode() for name in wanted}, {}
        places, covered = journal_index.look_up(self.folder, wanted)
        for name, rows in sorted(places.items()):
            with contextlib.suppress(OSError):
                found |= _read_places(self.folder / name, rows)
        starts, unread = {}, 0
        for name, size in self._sizes().items():
            seen, whole = covered.get(name, (0, 0))
            if size > seen:
                starts[name] = whole
                unread += size - whole
        if unread <= UNINDEXED_BYTES or not journal_index.add(self.folder, self._tails(starts, names, found)):
            self._read(starts, names, found)
        with contextlib.suppress(OSError):
            os.utime(self.folder / CONTEXT)
        return found

    def _sizes(self):
        """Return the size of each file of rows, {name: bytes}, sorted."""
        found = {}
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(".jsonl"):
                    with contextlib.suppress(OSError):  # deleted by now
                        found[entry.name] = entry.stat().st_size
        return dict(sorted(found.items()))

    def _tails(self, starts, names, found):
        """Yield (Tail, its rows) of the files that `starts` ({name: place}) names; see _rows."""
        for name, start in starts.items():
            tail = journal_index.Tail(self.folder / name, start)
            yield tail, _rows(tail, names, found)

    def _read(self, starts, names, found):
        for _, rows in self._tails(starts, names, found):
            # The file was deleted, or the network failed: its rows are computed again.
            with contextlib.suppress(OSError):
                for _ in rows:
                    pass

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
                f"{self.folder}: {error.strerror}; continuing without the journal: after an interruption, "
                "rows from here on are computed again",
                flush=True,
            )

    def _open(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / CONTEXT).exists():
            files.write_json(self.folder / CONTEXT, {"about": self.about, "context": self.context})
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self.file = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)


def _line(name, value):
    """Return a row as a line (bytes); the checksum covers all that follows it."""
    rest = f'","{name}",{json.dumps(value, allow_nan=False)}]\n'.encode()
    return b'["%08x' % zlib.crc32(rest) + rest


def _rows(tail, names, found):
    """Yield (key, place, length) of the whole lines of a Tail.

    Adds the values of the rows whose key is among `names` (bytes), or of all if that is None, to `found`.
    Prints which lines are damaged.
    """
    damaged = []
    for place, line in tail:
        if not _is_whole(line):
            damaged.append(place)
            continue
        name = line[13:45]
        if names is None or name in names:
            found[name.decode()] = json.loads(line[47:-2])
        yield name.decode(), place, len(line)
    _report(tail.path, damaged)


def _read_places(path, rows):
    """Return {key: value} of the rows [(key, place, length), …] of a file; prints which are damaged."""
    found, damaged = {}, []
    with open(path, "rb") as file:
        for name, place, length in sorted(rows, key=lambda row: row[1]):
            file.seek(place)
            line = file.read(length)
            if _is_whole(line) and line[13:45] == name.encode():
                found[name] = json.loads(line[47:-2])
            else:
                damaged.append(place)
    _report(path, damaged)
    return found


def _is_whole(line):
    return line[:10] == b'["%08x' % zlib.crc32(line[10:])


def _report(path, damaged):
    """Print the line of a file that begins at the first of the places `damaged`, and the number of others."""
    if damaged:
        number = 1 + sum(1 for place, _ in journal_index.Tail(path, 0) if place < damaged[0])
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        print(f"{path}, line {number}{more}: damaged or cut off; computed again where needed", flush=True)

"""Find rows of a journal without reading it: an index of the places of all rows.

The index of a journal is SQLite files in its folder, index-*.sqlite. Each is written under a temporary name,
renamed, and never changed, so that jobs share them without locks, also on a network file system. A job that
reads much that is not in the index adds a file, and merges into it those that are not much larger, so there
are few. The index saves time and nothing else: a row that it names is checked when it is read, and any of its
files may be deleted at any time.
"""

import contextlib
import os
import secrets
from typing import NamedTuple
from urllib.parse import quote

from prefline import files

MOST_MERGED = 8  # SQLite attaches ten files at once
BYTES_OF_ROW = 40  # in an index, about
SMALL = 2**20  # bytes of an index file that is merged in any case
TRIES = 5  # a merge deletes files that were listed
TABLES = """
CREATE TABLE files (number INTEGER PRIMARY KEY, name TEXT UNIQUE, seen INTEGER, whole INTEGER);
CREATE TABLE rows (key BLOB, file INTEGER, start INTEGER, length INTEGER, PRIMARY KEY (key, file, start))
    WITHOUT ROWID;
"""


class Covered(NamedTuple):
    """The part of a journal's file that is in the index."""

    seen: int  # size (bytes) of the file when it was read
    whole: int  # where its last line began if that was not whole, else the same


class Tail:
    """The lines of a file from a place on; `covered` is what has been read."""

    def __init__(self, path, start):
        self.path = path
        self.covered = Covered(start, start)

    def __iter__(self):
        """Yield (place, line) of each line (bytes)."""
        with open(self.path, "rb") as file:
            place = self.covered.whole
            file.seek(place)
            for line in file:
                yield place, line
                end = place + len(line)
                self.covered = Covered(end, end if line.endswith(b"\n") else place)
                place = end


def look_up(folder, keys):
    """Return (places, covered): {file's name: [(key, start, length), …]} of rows, and {file's name: Covered}.

    folder: Path of the journal; keys: iterable of its keys (hexadecimal str).
    """
    for _ in range(TRIES):
        with contextlib.suppress(FileNotFoundError):
            return _look_up(sorted(folder.glob("index-*.sqlite")), keys)
    return {}, {}


def _look_up(paths, keys):
    import sqlite3

    places, covered = {}, {}
    if not paths:
        return places, covered
    with contextlib.closing(sqlite3.connect(":memory:", uri=True)) as database:
        database.execute("CREATE TABLE wanted (key BLOB PRIMARY KEY) WITHOUT ROWID")
        database.executemany("INSERT INTO wanted VALUES (?)", ((bytes.fromhex(key),) for key in sorted(keys)))
        for path in paths:
            try:
                _attach(database, path)
                found = database.execute(
                    "SELECT name, lower(hex(key)), start, length FROM wanted CROSS JOIN one.rows USING (key) "
                    "JOIN one.files ON number = file"
                ).fetchall()
                parts = database.execute("SELECT name, seen, whole FROM one.files").fetchall()
            except sqlite3.DatabaseError:
                if path.exists():  # damaged: what it covers is read and indexed again
                    path.unlink(missing_ok=True)
                raise FileNotFoundError(path) from None
            database.commit()
            database.execute("DETACH one")
            for name, *place in found:
                places.setdefault(name, []).append(tuple(place))
            for name, *part in parts:
                covered[name] = Covered(*map(max, part, covered.get(name, part)))
    return places, covered


def _attach(database, path, name="one"):
    database.commit()
    database.execute(f"ATTACH ? AS {name}", (f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1",))


def add(folder, tails):
    """Write an index file of new rows, and merge small files into it; return whether it was written.

    tails: iterable of (Tail, rows), rows: iterable of (key, start, length) of the lines of the Tail.
    """
    import sqlite3

    path = folder / f"index-{secrets.token_hex(8)}.sqlite"
    with contextlib.suppress(OSError, sqlite3.DatabaseError), files.atomic(path) as temporary:
        address = f"file:{quote(str(temporary.absolute()))}?vfs=unix-none"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {TABLES}")
            database.execute("CREATE TEMP TABLE new (key BLOB, file INTEGER, start INTEGER, length INTEGER)")
            for number, (tail, rows) in enumerate(tails):
                database.executemany(
                    "INSERT INTO new VALUES (?, ?, ?, ?)",
                    ((bytes.fromhex(key), number, start, length) for key, start, length in rows),
                )
                covered = (number, tail.path.name, *tail.covered)
                database.execute("INSERT INTO files VALUES (?, ?, ?, ?)", covered)
            number = database.execute("SELECT count(*) FROM new").fetchone()[0]
            merged = _to_merge(folder, number * BYTES_OF_ROW)
            _merge(database, merged)
    if not path.exists():
        return False
    for old in merged:
        old.unlink(missing_ok=True)
    return True


def _to_merge(folder, size):
    """Return the index files (list of Path) that are small, or not much larger than those before together."""
    sizes = sorted((os.stat(path).st_size, path) for path in folder.glob("index-*.sqlite"))
    merged = []
    for other, path in sizes[:MOST_MERGED]:
        if other > max(2 * size, SMALL):
            break
        merged.append(path)
        size += other
    return merged


def _merge(database, merged):
    rows = ["SELECT * FROM new"]
    for place, path in enumerate(merged):
        name = f"old{place}"
        _attach(database, path, name)
        database.execute(
            f"INSERT INTO files (name, seen, whole) SELECT name, seen, whole FROM {name}.files WHERE true "
            "ON CONFLICT (name) DO UPDATE SET seen = max(seen, excluded.seen), "
            "whole = max(whole, excluded.whole)"
        )
        rows.append(
            f"SELECT key, here.number, start, length FROM {name}.rows "
            f"JOIN {name}.files AS there ON there.number = file JOIN main.files AS here USING (name)"
        )
    database.execute(f"INSERT OR IGNORE INTO main.rows {' UNION ALL '.join(rows)} ORDER BY 1, 2, 3")
    database.commit()

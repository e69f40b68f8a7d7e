"""Compute the sha256 of files, and read a file again only if its size, times or inode changed."""

import contextlib
import hashlib
import os
import sys
import time
from pathlib import Path

from prefline import files

# A file that changes twice within a tick of the file system's clock has one time for both contents. So a hash
# is kept for the next start only if it was computed this long after the file's latest change.
TICK_NS = 10**8
# Bytes of a file that take long to read, and are announced.
LARGE = 2 * 10**9


class Hashes:
    """Content hashes by path, kept in a file between runs. Symbolic links are followed."""

    def __init__(self, path):
        """Load the hashes in `path`; if it is damaged or missing, all files are read again."""
        self.path = Path(path)
        self.known = {}
        self.fresh = set()  # names of files that had only just changed
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            self.known = {
                name: (tuple(look), sha) for name, (look, sha) in files.read_json(self.path).items()
            }
        self.changed = False

    def of(self, path):
        """Return the sha256 (hexadecimal str) of the file `path`, or of all files in the directory `path`."""
        path = Path(path)
        if path.is_dir():
            return self._of_directory(path)
        look, name = look_of(path), str(path)
        if name not in self.known or self.known[name][0] != look:
            if look[0] > LARGE:
                print(f"reading {name} ({look[0] / 1e9:.0f} GB) for its hash", file=sys.stderr, flush=True)
            self._put(name, look, files.sha256(path))
        return self.known[name][1]

    def put(self, path, sha):
        """Store the sha256 of the file `path`, which was just read or written."""
        self._put(str(path), look_of(path), sha)

    def _put(self, name, look, sha):
        self.known[name] = (look, sha)
        (self.fresh.add if time.time_ns() - min(look[1:3]) < TICK_NS else self.fresh.discard)(name)
        self.changed = True

    def together(self, paths):
        """Return one hash (hexadecimal str) of several files; a missing one counts as missing."""
        parts = [self.of(path) if Path(path).exists() else "missing" for path in paths]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def save(self):
        """Save the hashes for the next run; without a writable folder they are computed again."""
        if self.changed:
            with contextlib.suppress(OSError):
                files.write_json(
                    self.path, {name: known for name, known in self.known.items() if name not in self.fresh}
                )
            self.changed = False

    def _of_directory(self, directory):
        members = sorted(member for member in directory.rglob("*") if member.is_file())
        lines = [
            f"{member.relative_to(directory)} {self.of(member)}"
            for member in members
            if member.name != ".snakemake_timestamp"
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def look_of(path):
    """Return (size, times in ns, inode), which show a change of a file without reading it.

    The second time, the ctime, shows a change whose date was set back, and a file that got a deleted one's
    inode.
    """
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def is_older(path, time):
    """Return whether a file exists and has not changed since `time` (seconds since the epoch).

    Its ctime counts, which nobody can set. Hard links change that too: of a file with several, the time of
    its content counts.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    return status.st_ctime <= time or (status.st_nlink > 1 and status.st_mtime <= time)


def links_are_older(path, time):
    """Return whether all links in a path lead where they led at `time` (seconds since the epoch)."""
    parts = (Path(path), *Path(path).parents)
    return all(os.lstat(part).st_ctime <= time for part in parts if part.is_symlink())

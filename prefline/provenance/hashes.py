"""The sha256 of files, each read once: a file that looks as it did when it was read is not read again."""

import contextlib
import hashlib
import os
from pathlib import Path

from prefline import files


class Hashes:
    """Content hashes by path, kept in a file between runs. Symbolic links are followed."""

    def __init__(self, path):
        """path: where they are kept; a damaged or missing file there only means to read everything again."""
        self.path = Path(path)
        self.known = {}
        with contextlib.suppress(OSError, ValueError):
            self.known = {
                name: (tuple(look), sha) for name, (look, sha) in files.read_json(self.path).items()
            }
        self.changed = False

    def of(self, path):
        """sha256 (hexadecimal str) of the file `path`; of the files in it, where it is a directory."""
        path = Path(path)
        if path.is_dir():
            return self._of_directory(path)
        look, name = look_of(path), str(path)
        if name not in self.known or self.known[name][0] != look:
            self.put(path, files.sha256(path))
        return self.known[name][1]

    def put(self, path, sha):
        """Note the sha256 of the file `path` as it is now, where somebody has just read or written it."""
        self.known[str(path)] = (look_of(path), sha)
        self.changed = True

    def together(self, paths):
        """One hash (hexadecimal str) of several files; a missing one counts as missing."""
        parts = [self.of(path) if Path(path).exists() else "missing" for path in paths]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def save(self):
        """Keep what is known for the next run; a folder that cannot be written costs time only."""
        if self.changed:
            with contextlib.suppress(OSError):
                files.write_json(self.path, self.known)
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
    """What tells a file from a changed one without reading it: (size, time in ns, inode)."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino

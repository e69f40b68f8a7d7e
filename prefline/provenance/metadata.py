"""Read and write the files that Snakemake decides by: .snakemake/metadata and .snakemake/incomplete.

A crash of the machine truncates them, network file systems and editors leave files beside them. A file that
is not Snakemake's counts as missing, and is named once.
"""

import base64
import contextlib
import functools
import json
import os
import sys
from pathlib import Path

from prefline import files

METADATA = Path(".snakemake/metadata")
INCOMPLETE = Path(".snakemake/incomplete")
RESULTS = Path("results")
# Keys that Snakemake compares when it decides whether to run a job again.
COMPARED = (
    "rule",
    "input",
    "log",
    "shellcmd",
    "params",
    "code",
    "record_format_version",
    "software_stack_hash",
)
# Key of Snakemake's metadata that this workflow does not use, and its value for a job that did not run.
MARK, TOUCHED = "external_jobid", "touched"
# The types of the keys that are used here.
TYPES = {
    **dict.fromkeys(("input", "log", "params"), list),
    **dict.fromkeys(("rule", "shellcmd", "code", "software_stack_hash"), str),
    "record_format_version": int,
    **dict.fromkeys(("starttime", "endtime"), (int, float)),
}


def of(output):
    """Return Snakemake's metadata of an output (dict); None without any."""
    return read(path_of(output))


def read(path):
    """Return Snakemake's metadata in a file (dict); None if the file is missing or is not metadata."""
    if path is None:
        return None
    try:
        made = json.loads(Path(path).read_text(encoding="utf-8"))
        if all(isinstance(made.get(key), kind) for key, kind in TYPES.items()) and all(
            isinstance(one, str) for key in ("input", "log", "params") for one in made[key]
        ):
            return made
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError):
        pass
    name_once(path, "is not metadata of Snakemake's, and counts as missing")
    return None


@functools.cache
def name_once(path, what):
    """Warn, once in a process, about a file that is not what it should be."""
    print(f"{path}: {what}", file=sys.stderr)


def path_of(output, folder=METADATA):
    """Return Snakemake's file about an output: base64 of its path, cut into short enough names."""
    name = base64.urlsafe_b64encode(str(output).encode()).decode()
    parts = [name[start : start + 254] for start in range(0, len(name), 254)]
    return folder.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def entries(folder):
    """Return (output, file) of each file about an output under results/ in one of Snakemake's folders."""
    found = []
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory, name)
            output = _output_of(path.relative_to(folder))
            if output is None or path_of(output, folder) != path:
                name_once(path, "is not a file of Snakemake's, and counts as missing; delete it")
            elif Path(output).is_relative_to(RESULTS):
                found.append((output, path))
    return found


def _output_of(path):
    """Return the output (str) that a file in one of Snakemake's folders is about, or None."""
    encoded = "".join(part.removeprefix("@") for part in path.parts)
    with contextlib.suppress(ValueError):
        return base64.urlsafe_b64decode(encoded.encode("ascii")).decode()
    return None


def write(output, values, seconds, stacks):
    """Write the metadata of an output.

    values: dict with the keys COMPARED; seconds: of the job; stacks: as environments.here gives it.
    """
    path = path_of(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    INCOMPLETE.mkdir(parents=True, exist_ok=True)  # without it, Snakemake treats METADATA as an old version's
    end = os.stat(output).st_mtime
    made = {**values, "starttime": end - seconds, "endtime": end, "incomplete": False}
    made["software_stack_hash"] = stacks.get(made["software_stack_hash"], made["software_stack_hash"])
    files.write_json(path, made)


def repair_markers(paths):
    """Replace files in INCOMPLETE that Snakemake could not read: they still mark unfinished outputs."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            if isinstance(files.read_json(path), dict):
                continue
        name_once(path, "is damaged, and is replaced")
        files.write_json(path, {"external_jobid": None})


def mark_touched(persistence_class, touches):
    """Have Snakemake's class note in its metadata whether a job ran or `--touch` only dated its outputs.

    touches: a function that tells whether this process touches.
    """
    write = persistence_class.__dict__.get("prefline_write", persistence_class._write_record)

    def marked(persistence, key, record):
        setattr(record, MARK, TOUCHED if touches() else None)
        write(persistence, key, record)

    persistence_class.prefline_write, persistence_class._write_record = write, marked

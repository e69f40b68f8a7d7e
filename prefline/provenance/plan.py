"""Give the jobs of a run the code, config and rules that were planned, whatever is edited during the run.

A job may start days after its plan. So a start of Snakemake copies the code, hashes the copy, and has its
jobs import from the copy: a job's code is the code in its params and its record. The Snakemake of a job on a
cluster or in a group reads the config and the copy's place from a file.
"""

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import time
from pathlib import Path

from prefline import files
from prefline.errors import InputError
from prefline.provenance import imports, manifest

# The plan of the latest run.
FILE = Path(".snakemake/prefline_plan.json")
COPIES = Path(".snakemake/prefline_code")
# Copied: the project's packages, and what their modules read beside them.
COPIED = (*imports.PACKAGES, "rules/schemas")
KEYS = {"started", "code", "config", "own_code", "rules", "packages"}
# Older copies are deleted, unless the latest run has them: jobs of a run that was killed end before that.
KEPT_SECONDS = 7 * 86_400


def copy_code():
    """Return the folder (str, absolute) with a copy of the project's code as it is now."""
    found = {
        path: path.read_bytes()
        for folder in COPIED
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    digest = hashlib.sha256()
    for path, text in found.items():
        digest.update(f"{path} {len(text)}\n".encode() + text)
    copy = COPIES / digest.hexdigest()[:16]
    if not _is_whole(copy, found):
        shutil.rmtree(copy, ignore_errors=True)
        with contextlib.suppress(FileExistsError), files.atomic_directory(copy) as temporary:
            for path, text in found.items():
                (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                (temporary / path).write_bytes(text)
        _delete_old(copy)
    return str(copy.absolute())


def _is_whole(copy, found):
    """Return whether the folder `copy` has the files `found` ({path: bytes})."""
    try:
        return all((copy / path).read_bytes() == text for path, text in found.items())
    except OSError:
        return False


def _delete_old(latest):
    planned = Path((read() or {"code": ""})["code"]).name
    for copy in COPIES.iterdir():
        with contextlib.suppress(OSError):
            if copy.name not in (planned, latest.name) and copy.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(copy)


def hashes(paths, code):
    """Return {path: hash of its code} of the user's files; code: of `copy_code`."""
    return {path: imports.code_hash(path, code) for path in paths}


def write(started, code, config, own_code, rules):
    """Write the plan of a run that begins.

    started: seconds since the epoch at which the plan was begun; code: of `copy_code`; config: dict, checked;
    own_code: {file of the user's: hash of its code}; rules: of `rules_hash`.
    """
    plan = {"started": started, "code": code, "config": config, "own_code": own_code, "rules": rules}
    plan["packages"] = manifest.packages(manifest.NUMERIC)
    files.write_text(FILE, json.dumps(plan))  # in its order: runs are made in the config's


def read():
    """Return the plan of the latest run (dict); None if there is none."""
    try:
        found = files.read_json(FILE)
        return found if found.keys() >= KEYS else None
    except (OSError, ValueError, AttributeError):
        return None


def rules_hash(folder):
    """Return a hash (str) of the rules of the project in `folder`."""
    folder = Path(folder)
    paths = [folder / "Snakefile", *sorted(folder.glob("rules/**/*.smk"))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:32]


def check_rules(planned, now):
    """Raise InputError if the rules changed since the plan; both arguments: of `rules_hash`."""
    if planned != now:
        raise InputError(
            "Snakefile or rules/ changed since this run was planned, so its jobs would be other jobs; put "
            "the old text back, or stop the run and start it again"
        )


def shell_prefix(code, own_code):
    """Return what precedes the commands of all jobs (str), which Snakemake formats once."""
    settings = {
        # Threads that spin while they wait make jobs that share cores several times slower.
        "OMP_WAIT_POLICY": "passive",
        # `python -m` must not put the working directory, with the code as it is now, in front of the copy.
        "PYTHONSAFEPATH": "1",
        imports.CODE: code,
        imports.OWN_CODE: json.dumps(own_code),
    }
    words = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    words.append(f'PYTHONPATH="${imports.CODE}${{PYTHONPATH:+{os.pathsep}$PYTHONPATH}}"')
    text = "".join(f"export {word}; " for word in words)
    return text.replace("{", "{{").replace("}", "}}")

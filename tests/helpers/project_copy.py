"""Copies of the project's files, and what Snakemake says and does in them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dry_runs

ROOT = Path(__file__).resolve().parents[2]
# A folder for PYTHONPATH: with it, jobs take GPUs that are only names for usable.
PRETENDED_GPUS = str(Path(__file__).parent / "pretended_gpus")


def copy_project(to):
    """The files that git knows or would know, as they are now, and what Python compiled of the library."""
    names = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, text=True
    )
    for name in names.rstrip("\0").split("\0"):
        source = ROOT / name
        if source.is_symlink() or source.is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to / name, follow_symlinks=False)
    # Python uses what it compiled where time and size of the source fit.
    for compiled in ROOT.glob("prefline/**/__pycache__/*.pyc"):
        place = to / compiled.relative_to(ROOT)
        if (place.parents[1] / f"{compiled.name.partition('.')[0]}.py").exists():
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(compiled, place)
    return to


def snakemake(directory, *arguments, check=True):
    """Run Snakemake in `directory` with this interpreter's environment; the finished process."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    start = dry_runs.run if {"-n", "--dry-run"} & set(arguments) else dry_runs.begin
    process = start(arguments, directory, environment)
    if check:
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return process


def planned(directory, *arguments):
    """{rule: number of jobs} that Snakemake would run in `directory`, the target `all` aside."""
    said = snakemake(directory, "-n", *arguments)
    table = re.search(r"^Job stats:\n.*?\n-+.*?\n(.*?)^total", said.stdout + said.stderr, re.S | re.M)
    if not table:
        assert "Nothing to be done" in said.stdout + said.stderr
        return {}
    rows = [line.split() for line in table[1].splitlines() if line.strip()]
    return {rule: int(count) for rule, count in rows if rule != "all"}

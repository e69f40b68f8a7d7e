"""Killed at any moment and started again, the chain ends in the same bytes as undisturbed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import QUICK, snakemake

ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def jobs_of(directory):
    """Command lines of the project's script processes that run in `directory`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if Path(os.readlink(process / "cwd")) == directory and " -m scripts." in command:
                found.append(command)
        except OSError:
            continue
    return found


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for orphans in /proc")
def test_same_winrate_after_sigkills(finished, project):
    seconds = 8
    for _ in range(30):
        driver = subprocess.Popen(
            ["snakemake", *QUICK],
            cwd=project,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            driver.communicate(timeout=seconds)
            break
        except subprocess.TimeoutExpired:
            driver.send_signal(signal.SIGKILL)
            driver.communicate()
        deadline = time.monotonic() + 120
        while jobs_of(project) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert jobs_of(project) == [], "a job outlived the Snakemake that started it"
        seconds += 3
    snakemake(project, *QUICK)
    for name in ("winrate.json", "samples/sft/preferences.parquet", "samples/sft/tokenized.parquet"):
        assert (project / "results" / name).read_bytes() == (finished / "results" / name).read_bytes(), name

"""`python -m tools.progress` beside a real Snakemake: what it recorded of jobs that end and that fail."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT, snakemake

sys.path.insert(0, str(ROOT / "tests/helpers"))
import small_model

OVERLAY = """
models: {start: {source: given}, other: {source: given}, broken: {source: missing}}
training_defaults: {learning_rate: 1.0e-3}
"""
TARGETS = [f"results/models/{name}.json" for name in ("start", "other", "broken")]


def say(project, *flags):
    command = [sys.executable, "-m", "tools.progress", *flags]
    return subprocess.check_output(command, cwd=project, env=os.environ, text=True).splitlines()


@pytest.mark.slow
def test_jobs_that_end_and_that_fail_are_told(project):
    small_model.make_model(project / "given")
    (project / "missing").mkdir()
    (project / "overlay.yaml").write_text(OVERLAY)
    arguments = [*TARGETS, "--keep-going", "--configfile", "overlay.yaml"]
    assert snakemake(project, *arguments, check=False).returncode != 0
    lines = say(project)
    assert lines[0].startswith("2 of 3 jobs done, 0 running, 1 failed, 0:00:")
    assert lines[0].endswith(" so far; over")
    log = "logs/fetch_model/broken.txt"
    assert lines[1] == f"failed   fetch_model broken  {log}"
    assert (project / log).exists()
    assert lines[3].split() == ["fetch_model", "2/3", "1"]

    snakemake(project, "-n", *arguments)
    assert say(project) == lines, "a dry run is no run"
    assert f"2/3  failed    fetch_model broken  {log}" in say(project, "--watch")

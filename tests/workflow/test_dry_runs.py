"""A dry run that tests fork is the dry run of a new process."""

import os
import re
import sys
from pathlib import Path

import dry_runs
import pytest

# Clocks and random names.
OF_THE_MOMENT = re.compile(r"^(  Date: |  Workflow ID: |\[).*\n", re.M)


@pytest.mark.slow
def test_a_forked_dry_run_says_what_a_new_process_says(project):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for words in (["-n", "results/models/start.json"], ["-n", "--config", "sead=2"], ["-n", "no_target"]):
        one = dry_runs.begin(words, project, environment)
        other = dry_runs.run(words, project, environment)
        assert one.returncode == other.returncode
        for found, wanted in ((other.stdout, one.stdout), (other.stderr, one.stderr)):
            assert OF_THE_MOMENT.sub("", found) == OF_THE_MOMENT.sub("", wanted)
    assert "results/models/start.json" not in other.stdout


@pytest.mark.slow
def test_what_python_reads_as_it_starts_gets_a_new_process(project, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('started anew')\n")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = ["--version"]
    assert "started anew" not in dry_runs.run(words, project, environment).stdout
    environment["PYTHONPATH"] = str(tmp_path)
    assert "started anew" in dry_runs.run(words, project, environment).stdout

"""Edits while Snakemake runs, and behind its back: nothing stale is shown, or called verified."""

import json
import os
import stat
import subprocess
import sys

import pytest
import small_model
from project_copy import ROOT, copy_project, planned, snakemake

OVERLAY = """
models: {start: {source: given}, other: {source: given}}
training_defaults: {learning_rate: 1.0e-3}
"""
TARGETS = ["results/models/start.json", "results/models/other.json"]
ARGUMENTS = [*TARGETS, "--cores", "1", "--configfile", "overlay.yaml"]
SCRIPT = "scripts/models/fetch_model.py"
# A `python` for jobs: a branch is switched when the first job starts, before it imports anything.
SWITCH = """#!/bin/bash
test -e switched || {{ echo 'raise SystemExit("error: of another branch")' > {script}; touch switched; }}
exec {python} "$@"
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose branch was switched while two models were fetched, and switched back afterwards."""
    project = copy_project(tmp_path_factory.mktemp("edits") / "project")
    small_model.make_model(project / "given")
    (project / "overlay.yaml").write_text(OVERLAY)
    wrapper = project / "bin/python"
    wrapper.parent.mkdir()
    wrapper.write_text(SWITCH.format(script=SCRIPT, python=sys.executable))
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    path = f"{wrapper.parent}:{sys.executable.rpartition('/')[0]}:{os.environ['PATH']}"
    subprocess.run(["snakemake", *ARGUMENTS], cwd=project, env={**os.environ, "PATH": path}, check=True)
    assert "of another branch" in (project / SCRIPT).read_text()
    return project


@pytest.fixture
def copy(project, tmp_path):
    """The same with the code of the plan."""
    subprocess.check_call(["cp", "-a", project, tmp_path / "copy"])
    (tmp_path / "copy" / SCRIPT).write_bytes((ROOT / SCRIPT).read_bytes())
    return tmp_path / "copy"


def lineage(directory):
    return subprocess.run(
        [sys.executable, "-m", "tools.lineage", TARGETS[0]],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )


def test_jobs_ran_the_code_of_the_plan_and_another_branch_runs_them_again(project, copy):
    said = snakemake(copy, "-n", *ARGUMENTS)
    assert "Nothing to be done" in said.stdout + said.stderr
    assert "provenance" not in said.stdout + said.stderr  # nothing is said to be unknown
    assert lineage(copy).stdout.splitlines()[-1].startswith("verified: ")
    assert planned(project, *ARGUMENTS) == {"fetch_model": 2}


def test_a_byte_flipped_in_weights_is_seen_although_their_date_is_set_back(copy):
    weights = copy / "results/models/start/model.safetensors"
    status = weights.stat()
    content = bytearray(weights.read_bytes())
    weights.unlink()  # it is a link to the source's
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert lineage(copy).stderr.startswith("not verified: results/models/start")
    said = snakemake(copy, "-n", *ARGUMENTS, check=False)
    assert "changed since the workflow made them: results/models/start;" in said.stdout + said.stderr
    # Both sentences end with the command that helps.
    command = (said.stdout + said.stderr).partition("made again by: ")[2].splitlines()[0]
    assert command == "rm -r results/models/start && snakemake results/models/start"
    subprocess.check_call(["rm", "-r", copy / "results/models/start"])
    assert planned(copy, "results/models/start", *ARGUMENTS[2:]) == {"fetch_model": 1}


def test_data_with_a_date_in_the_future_fails_no_job_that_is_done(copy):
    for path in (copy / "given").glob("*.json"):
        os.utime(path, (4e9, 4e9))
    snakemake(copy, "--forceall", *ARGUMENTS)
    assert planned(copy, *ARGUMENTS) == {}


def test_touch_records_no_computation(copy):
    record = copy / "results/records/models/start.json.json"
    made = json.loads(record.read_text())
    snakemake(copy, "--touch", *ARGUMENTS)
    assert json.loads(record.read_text()) == made  # all was up to date: the job did make it so
    script = copy / SCRIPT
    script.write_text(f"{script.read_text()}\nEPSILON = 1\n")
    snakemake(copy, "--touch", *ARGUMENTS)
    assert planned(copy, *ARGUMENTS) == {}
    process = lineage(copy)
    assert "touched: no job made it" in process.stdout
    assert "was declared up to date by `snakemake --touch`" in process.stderr
    snakemake(copy, "--forceall", *ARGUMENTS)
    assert lineage(copy).returncode == 0


def test_the_snakemake_of_a_job_has_the_config_and_the_rules_of_the_plan(copy):
    """As in a queue: config.yaml and the code are another branch's when the job starts."""
    (copy / "overlay.yaml").write_text(OVERLAY.replace("other: {source: given}", "other: {source: nowhere}"))
    (copy / SCRIPT).write_text("raise SystemExit('error: of another branch')")
    job = ["--mode", "remote", "--force", "--nolock", "--cores", "1", "--configfile", "overlay.yaml"]
    said = snakemake(copy, TARGETS[1], *job)
    assert "given -> results/fetched/other" in said.stdout + said.stderr
    (copy / "rules/rank.smk").write_text("# of another branch\n")
    said = snakemake(copy, TARGETS[1], *job, check=False)
    assert said.returncode and "rules/ changed since this run was planned" in said.stdout + said.stderr

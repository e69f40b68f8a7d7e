"""What Slurm takes away comes back where it was, on a real Slurm; what is wrong in itself fails once."""

import hashlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.workflow.conftest import copy_project, snakemake

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
]

SMALL = """
models:
  base: {source: data/policy}
  sft: {training: {num_train_epochs: 1.2}}
"""
SFT = ["results/models/sft", "--configfile", "small.yaml"]
WEIGHTS = "results/models/sft/model.safetensors"
LOG = "logs/train_sft.txt"


def start(slurm, directory, *arguments):
    """A Snakemake that works through the profile slurm, in the background."""
    return subprocess.Popen(
        ["snakemake", "--profile", "slurm", *arguments],
        cwd=directory,
        env=slurm.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition, seconds=150):
    """The first true value of condition(); fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.3)
    raise AssertionError("it did not come to that in time")


def jobs_of(slurm, directory, rule):
    """Slurm's records of a rule's jobs in a folder, the first one first."""
    found = [job for job in slurm.jobs() if job["Rule"] == rule and job["WorkDir"] == str(directory)]
    return sorted(found, key=lambda job: int(job["JobId"]))


def log_says(directory, words):
    path = directory / LOG
    return path.exists() and words in path.read_text()


def resumed_at(directory):
    """The step (int) after which the job that writes the log goes on; None if it began afresh."""
    path = directory / LOG  # Snakemake deletes it before it tries a job again
    found = re.search(r"going on after step (\d+)", path.read_text() if path.exists() else "")
    return int(found[1]) if found else None


def training_in(directory):
    """The process (int) that trains in a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            if b"-m\0scripts.train_sft" in words and Path(os.readlink(process / "cwd")) == directory:
                return int(process.name)
        except OSError:
            continue
    raise AssertionError("nobody trains")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def small(project):
    """The project with a training of a minute and nothing else to do."""
    (project / "small.yaml").write_text(SMALL)
    return project


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The weights (sha256) of that training when nobody disturbs it."""
    directory = copy_project(tmp_path_factory.mktemp("undisturbed"))
    (directory / "small.yaml").write_text(SMALL)
    snakemake(directory, *SFT)
    return sha256(directory / WEIGHTS)


def test_a_training_survives_preemption_scancel_and_a_hang_until_its_time_limit(slurm, small, undisturbed):
    driver = start(slurm, small, *SFT)
    try:
        wait_for(lambda: log_says(small, "step "))
        (job,) = jobs_of(slurm, small, "train_sft")

        # Preempted: Slurm itself queues the same job again.
        slurm.ask("sbatch", "-p", "urgent", "--gpus=2", "--nodes=1", "-o", "/dev/null", "--wrap", "sleep 2")
        wait_for(lambda: jobs_of(slurm, small, "train_sft")[0]["Restarts"] == "1")
        preempted_at = wait_for(lambda: resumed_at(small))

        # Cancelled: another job, with more memory.
        slurm.ask("scancel", job["JobId"])
        wait_for(lambda: len(jobs_of(slurm, small, "train_sft")) == 2)
        wait_for(lambda: (resumed_at(small) or 0) > preempted_at)

        # Hanging until it is out of time, deaf to SIGTERM.
        os.kill(training_in(small), signal.SIGSTOP)
        second = jobs_of(slurm, small, "train_sft")[1]
        slurm.ask("scontrol", "update", f"JobId={second['JobId']}", "EndTime=now")
        said, _ = driver.communicate(timeout=300)
    finally:
        driver.kill()
    assert driver.returncode == 0, said[-3000:]
    jobs = jobs_of(slurm, small, "train_sft")
    assert [job["JobState"] for job in jobs] == ["CANCELLED", "TIMEOUT", "COMPLETED"]
    assert [job["MinMemoryNode"] for job in jobs] == ["3000M", "6000M", "9000M"]
    assert sha256(small / WEIGHTS) == undisturbed


def test_a_killed_driver_leaves_no_second_writer(slurm, small, undisturbed):
    driver = start(slurm, small, *SFT)
    wait_for(lambda: log_says(small, "step "))
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    (job,) = jobs_of(slurm, small, "train_sft")
    assert job["JobState"] == "RUNNING"

    again = start(slurm, small, *SFT)
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said[-3000:]
    first, *others = jobs_of(slurm, small, "train_sft")
    for other in others:
        assert other["StartTime"] >= first["EndTime"], "two jobs wrote the same files"
    assert sha256(small / WEIGHTS) == undisturbed


def test_bad_input_fails_once_and_says_why(slurm, small):
    (small / "small.yaml").write_text("models: {base: {source: data/world}}")
    driver = start(slurm, small, *SFT)
    said, _ = driver.communicate(timeout=200)
    assert driver.returncode == 1
    assert len(jobs_of(slurm, small, "fetch_model")) == 1
    assert "error: data/world" in said, said[-3000:]


def test_a_killed_job_is_tried_again_with_more_memory(slurm, small):
    driver = start(slurm, small, "results/models/base", "--configfile", "small.yaml")
    try:
        job = wait_for(lambda: jobs_of(slurm, small, "fetch_model"))[0]
        slurm.ask("scancel", "-s", "KILL", job["JobId"])
        said, _ = driver.communicate(timeout=200)
    finally:
        driver.kill()
    assert driver.returncode == 0, said[-3000:]
    jobs = jobs_of(slurm, small, "fetch_model")
    assert [job["MinMemoryNode"] for job in jobs] == ["1000M", "2000M"]

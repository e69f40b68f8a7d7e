"""What Slurm takes away comes back where it was, on a real Slurm; what is wrong in itself fails once."""

import hashlib
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.cluster.slurm_here import wait_for
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
LOG = "logs/train_sft/sft.txt"


def log(directory, name=LOG):
    """What a job's log has (str) so far; Snakemake deletes it before it tries a job again."""
    path = directory / name
    return path.read_text() if path.exists() else ""


def stepped(directory):
    """The step (int) up to which the job that writes the log says it has trained; 0 before the first."""
    return max(map(int, re.findall(r"^step (\d+)/", log(directory), re.MULTILINE)), default=0)


def resumed_at(directory):
    """The step (int) after which the job that writes the log goes on; None if it began afresh."""
    found = re.search(r"resuming after step (\d+)", log(directory))
    return int(found[1]) if found else None


def process_of(directory, rule):
    """The process (int) of a rule's script in a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            # Behind what leases GPUs for it, which is another process's first word.
            if (
                words.split(b"\0")[1:3] == [b"-m", b"scripts." + rule.encode()]
                and Path(os.readlink(process / "cwd")) == directory
            ):
                return int(process.name)
        except OSError:
            continue
    return None


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
    driver = slurm.start_snakemake(small, *SFT)
    try:
        wait_for(lambda: stepped(small), 150, "a first step")
        (job,) = slurm.jobs_of(small, "train_sft")

        # Preempted: Slurm itself queues the same job again.
        slurm.ask("sbatch", "-p", "urgent", "--gpus=2", "--nodes=1", "-o", "/dev/null", "--wrap", "sleep 2")
        preempted_at = wait_for(lambda: resumed_at(small), 150, "the training to go on")
        assert slurm.jobs_of(small, "train_sft")[0]["Restarts"] == "1"

        # Cancelled: another job, with more memory.
        slurm.ask("scancel", job["JobId"])
        wait_for(lambda: (resumed_at(small) or 0) > preempted_at, 150, "the next job to go on")

        # Hanging until it is out of time, deaf to SIGTERM.
        os.kill(process_of(small, "train_sft"), signal.SIGSTOP)
        second = slurm.jobs_of(small, "train_sft")[1]
        slurm.ask("scontrol", "update", f"JobId={second['JobId']}", "EndTime=now")
        said, _ = driver.communicate(timeout=300)
    finally:
        driver.kill()
    assert driver.returncode == 0, said[-3000:]
    jobs = slurm.jobs_of(small, "train_sft")
    assert [job["JobState"] for job in jobs] == ["CANCELLED", "TIMEOUT", "COMPLETED"]
    assert [job["MinMemoryNode"] for job in jobs] == ["3000M", "6000M", "9000M"]
    assert sha256(small / WEIGHTS) == undisturbed


def test_ten_preemptions_in_one_training_change_nothing(slurm, small, undisturbed):
    driver = slurm.start_snakemake(small, *SFT)
    try:
        wait_for(lambda: stepped(small), 150, "a first step")
        (job,) = slurm.jobs_of(small, "train_sft")
        for _ in range(10):
            trained = process_of(small, "train_sft")
            slurm.ask("scontrol", "requeue", job["JobId"])
            wait_for(lambda old=trained: process_of(small, "train_sft") not in (None, old), 150, "the job")
            wait_for(lambda: resumed_at(small) and stepped(small), 150, "a step after the checkpoint")
        said, _ = driver.communicate(timeout=300)
    finally:
        driver.kill()
    assert driver.returncode == 0, said[-3000:]
    (job,) = slurm.jobs_of(small, "train_sft")
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "10")
    assert sha256(small / WEIGHTS) == undisturbed


def test_a_training_goes_on_at_another_node_when_its_own_loses_power(two_nodes, small, undisturbed):
    often = ["--set-resources", "train_sft:save_steps=5"]
    driver = two_nodes.start_snakemake(small, *SFT[:1], *often, *SFT[1:])
    try:
        wait_for(lambda: stepped(small) >= 12, 300, "more steps than the first checkpoint's")
        dead = two_nodes.jobs_of(small, "train_sft")[0]["NodeList"]
        two_nodes.cut_power(dead)
        said, _ = driver.communicate(timeout=400)
    finally:
        driver.kill()
    assert driver.returncode == 0, said[-3000:]
    (job,) = two_nodes.jobs_of(small, "train_sft")
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1")
    assert job["NodeList"] != dead
    assert resumed_at(small) >= 5
    assert sha256(small / WEIGHTS) == undisturbed


def test_a_killed_driver_leaves_no_second_writer(slurm, small, undisturbed):
    driver = slurm.start_snakemake(small, *SFT)
    wait_for(lambda: stepped(small), 150, "a first step")
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    (job,) = slurm.jobs_of(small, "train_sft")
    assert job["JobState"] == "RUNNING"

    again = slurm.start_snakemake(small, *SFT)
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said[-3000:]
    first, *others = slurm.jobs_of(small, "train_sft")
    for other in others:
        assert other["StartTime"] >= first["EndTime"], "two jobs wrote the same files"
    assert sha256(small / WEIGHTS) == undisturbed


def test_bad_input_fails_once_and_says_why(slurm, small):
    shutil.copytree(small / "data/policy", small / "broken")
    (small / "broken/model.safetensors").write_bytes(b"cut off")
    (small / "small.yaml").write_text(
        "models: {base: {source: broken}}\ntraining_defaults: {learning_rate: 1.0e-3}"
    )
    driver = slurm.start_snakemake(small, *SFT)
    said, _ = driver.communicate(timeout=200)
    assert driver.returncode == 1
    assert len(slurm.jobs_of(small, "fetch_model")) == 1
    assert "error: broken: model.safetensors is not a complete" in said, said[-3000:]


def test_a_killed_job_is_tried_again_with_more_memory(slurm, small):
    driver = slurm.start_snakemake(small, "results/models/base", "--configfile", "small.yaml")
    try:
        job = wait_for(lambda: slurm.jobs_of(small, "fetch_model"), 60, "the job")[0]
        slurm.ask("scancel", "-s", "KILL", job["JobId"])
        said, _ = driver.communicate(timeout=200)
    finally:
        driver.kill()
    assert driver.returncode == 0, said[-3000:]
    jobs = slurm.jobs_of(small, "fetch_model")
    assert [job["MinMemoryNode"] for job in jobs] == ["1000M", "2000M"]

"""The table of costs, from a real accounting: what a job that was cancelled held, stands in it, too."""

import subprocess
import sys

import pytest

from tests.cluster import slurm_here

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SMALL = "models: {base: {source: data/policy}, sft: {training: {num_train_epochs: 0.3}}}"


@pytest.fixture
def accounting():
    with slurm_here.running(gpus=2, cpus=16, kill_wait=5, accounting=True) as here:
        yield here


def test_a_job_that_was_cancelled_is_paid_for_too(accounting, project):
    (project / "small.yaml").write_text(SMALL)
    log = project / "logs/train_sft/sft.txt"
    driver = accounting.start_snakemake(project, "results/models/sft", "--configfile", "small.yaml")
    try:
        slurm_here.wait_for(lambda: log.exists() and "step " in log.read_text(), 150, "a first step")
        (job,) = accounting.jobs_of(project, "train_sft")
        accounting.ask("scancel", job["JobId"])
        said, _ = driver.communicate(timeout=300)
    finally:
        driver.kill()
    assert driver.returncode == 0, said[-3000:]

    words = [sys.executable, "-m", "tools.costs", "--logs", "logs"]
    table = subprocess.check_output(words, cwd=project, env=accounting.environment, text=True)
    heads, _, *rows = [line.strip("| ").split(" | ") for line in table.split("\n\n")[0].splitlines()]
    train = next(dict(zip(heads, row, strict=True)) for row in rows if row[0] == "train_sft")
    assert (train["jobs"], train["Slurm jobs"]) == ("1", "2"), table
    assert float(train["GPU hours held, all tries"]) > float(train["GPU hours held"]) > 0, table
    assert float(train["CPU hours held"]) > 0 and float(train["hours in the queue"]) >= 0, table

"""A disk that is full or read-only: one sentence, nothing half-written, and the next start goes on."""

import subprocess
import sys

import pytest
from conftest import ROOT, snakemake

sys.path.insert(0, str(ROOT / "tests/helpers"))
import large_models

TARGET = "results/models/start"


@pytest.fixture
def disk(project):
    """results/ of the project on a file system of its own, with room for one page."""
    results = project / "results"
    results.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4096", "none", results], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield results
    subprocess.run(["umount", results], check=True)


def remount(disk, option):
    subprocess.run(["mount", "-o", f"remount,{option}", disk], check=True)


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half_written_and_is_no_users_mistake(project, disk):
    done = snakemake(project, TARGET, check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "cannot write: [Errno 28] No space left on device" in said
    assert "free disk space and start again" in said
    assert {path.name for path in disk.rglob("*") if path.is_file()} <= {"table.txt"}
    remount(disk, "size=100m")
    snakemake(project, TARGET)
    assert (project / TARGET / "config.json").stat().st_size > 0
    assert list(disk.rglob("*.tmp")) == []


@pytest.mark.slow
def test_results_that_cannot_be_written_are_said_before_a_job_starts(project, disk):
    remount(disk, "ro")
    done = snakemake(project, TARGET, check=False)
    assert done.returncode != 0
    assert "results/ cannot be written" in done.stderr
    assert "rule fetch_model" not in done.stderr + done.stdout
    assert "fetch_model" in snakemake(project, "-n", TARGET).stdout


@pytest.mark.slow
def test_a_disk_that_the_plan_would_fill_is_said_before_a_job_starts(project):
    petabytes = (4096, 32, 32, 8, 14336, 10**12)
    large_models.write(project / "big", petabytes)
    overlay = "models: {sft: {source: big}}\ntrain: {learning_rate: 1.0e-6}"
    (project / "o.yaml").write_text(overlay)
    arguments = ["results/models/dpo-1", "--configfile", "o.yaml"]
    planned = snakemake(project, "-n", *arguments)
    done = snakemake(project, *arguments, check=False)
    for said in (planned.stdout + planned.stderr, done.stdout + done.stderr):
        assert "GB free, and the planned jobs write at least " in said
        assert "(checkpoints " in said and "move the project to a larger disk" in said
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert not (project / "results/checks").exists()

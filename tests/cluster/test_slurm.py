"""The whole chain through `--profile slurm` on a real Slurm, by Slurm's own records of every job."""

import subprocess

import pytest

from tests.workflow.conftest import QUICK

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.timeout(900),
]

ON_GPUS = {
    "pretrain",
    "train_sft",
    "train_reward_model",
    "generate_completions",
    "score_completions",
    "compute_ref_logps",
    "train_policy",
    "answer_mt_bench",
}


def snakemake(slurm, directory, *arguments, seconds=600):
    """Run Snakemake through the profile slurm; the finished process."""
    return subprocess.run(
        ["snakemake", "--profile", "slurm", *arguments],
        cwd=directory,
        env=slurm.environment,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def test_the_chain_runs_and_only_gpu_rules_hold_gpus(slurm, project):
    before = {job["JobId"] for job in slurm.jobs()}
    (project / "one_run.yaml").write_text("runs: {rebel: null}\nprompts: {shard_size: 24}")
    done = snakemake(slurm, project, "results/winrate.png", *QUICK, "one_run.yaml")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (project / "results/winrate.png").stat().st_size > 0

    jobs = [job for job in slurm.jobs() if job["JobId"] not in before]
    assert {job["Rule"] for job in jobs} > ON_GPUS
    for job in jobs:
        on_gpu = job["Rule"] in ON_GPUS
        assert job["JobState"] == "COMPLETED", job
        assert job["Partition"] == ("gpu" if on_gpu else "cpu"), job
        assert job.get("JOB_GRES", "(null)") == ("gpu:1" if on_gpu else "(null)"), job
        assert slurm.devices(job) in ({"0", "1"} if on_gpu else {""}), job
    busy = [job for job in jobs if job["Rule"] in ON_GPUS]
    for job in busy:
        for other in busy:
            if job is not other and job["StartTime"] <= other["StartTime"] < job["EndTime"]:
                assert slurm.devices(job) != slurm.devices(other), (job, other)

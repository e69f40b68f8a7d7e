"""The whole chain through `--profile slurm` on a real Slurm, by Slurm's own records of every job."""

import pytest

from tests.workflow.conftest import QUICK

pytestmark = [
    pytest.mark.cluster,
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


def test_the_chain_runs_and_only_gpu_rules_hold_gpus(slurm, project):
    before = {job["JobId"] for job in slurm.jobs()}
    (project / "one_run.yaml").write_text("runs: {rebel: null}\nprompts: {shard_size: 24}")
    done = slurm.snakemake(project, "results/winrate.png", *QUICK, "one_run.yaml")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (project / "results/winrate.png").stat().st_size > 0

    jobs = [job for job in slurm.jobs() if job["JobId"] not in before]
    assert {job["Rule"] for job in jobs} > ON_GPUS
    for job in jobs:
        on_gpu = job["Rule"] in ON_GPUS
        assert job["JobState"] == "COMPLETED", job
        assert job["Partition"] == ("gpu" if on_gpu else "cpu"), job
        assert job.get("JOB_GRES", "(null)") == ("gpu:a100:1" if on_gpu else "(null)"), job
        assert slurm.devices(job) in ({"0", "1"} if on_gpu else {""}), job
    busy = [job for job in jobs if job["Rule"] in ON_GPUS]
    for job in busy:
        for other in busy:
            if job is not other and job["StartTime"] <= other["StartTime"] < job["EndTime"]:
                assert slurm.devices(job) != slurm.devices(other), (job, other)


def test_a_site_lays_its_own_profile_over_ours(slurm, project):
    """profiles/example-site as it is: other partitions, two GPUs of a kind for one rule, its own limits."""
    (project / "small.yaml").write_text(
        "models: {base: {source: data/policy}, sft: {training: {num_train_epochs: 0.02}}}"
    )
    site = ["--profile", "profiles/example-site", "results/models/sft", "--configfile", "small.yaml"]
    before = {job["JobId"] for job in slurm.jobs()}
    done = slurm.snakemake(project, *site)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    jobs = {job["Rule"]: job for job in slurm.jobs() if job["JobId"] not in before}
    assert jobs.keys() == {"fetch_model", "train_sft"}
    assert jobs["fetch_model"]["Partition"] == "main"
    training = jobs["train_sft"]
    assert (training["Partition"], training["JOB_GRES"]) == ("a100", "gpu:a100:2")
    assert slurm.devices(training) == "0,1"
    assert training["MinMemoryNode"] == "8000M" and training["TimeLimit"] == "10:00:00"
    assert training["NumCPUs"] == "4"

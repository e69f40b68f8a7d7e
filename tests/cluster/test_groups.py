"""Short shards share a Slurm job and its one GPU, and the queue never holds more than `jobs`."""

import pytest

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
]


def test_shards_in_groups_share_one_gpu_and_the_queue_is_bounded(slurm, project):
    (project / "small.yaml").write_text(
        "models: {base: {source: data/policy}, sft: {training: {num_train_epochs: 0.02}}}\n"
        "prompts: {num_prompts: 20, num_test_prompts: 4, shard_size: 2}\n"
        "generate: {num_completions: 2, max_tokens: 8}"
    )
    before = {job["JobId"] for job in slurm.jobs()}
    grouped = ["--profile", "profiles/grouped", "--jobs", "3", "generate_sft", "--configfile", "small.yaml"]
    slurm.snakemake(project, *grouped)

    jobs = [job for job in slurm.jobs() if job["JobId"] not in before]
    groups = [job for job in jobs if job["Rule"].startswith("shards")]
    assert len(groups) == 2  # of 12 shards, at most 8 in each
    for job in groups:
        assert (job["Partition"], job["JOB_GRES"], job["MinMemoryNode"]) == ("gpu", "gpu:a100:1", "3000M")
    assert sorted(job["TimeLimit"] for job in groups) == ["02:00:00", "04:00:00"]
    assert len(list((project / "results/samples/sft/completions").glob("*.parquet"))) == 12
    assert sum(job["Rule"] == "sample_prompts" for job in jobs) == 12
    for moment in (job["SubmitTime"] for job in jobs):
        assert sum(job["SubmitTime"] <= moment < job["EndTime"] for job in jobs) <= 3

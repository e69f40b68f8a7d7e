"""A training on several GPUs of a node, and on several nodes: one Slurm job, launched once."""

import re

import pytest
from safetensors.torch import load_file

from tests.workflow.conftest import QUICK, copy_project, snakemake

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
MODEL = "results/models/sft.json"


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """The weights that one process trains."""
    directory = copy_project(tmp_path_factory.mktemp("one") / "project")
    snakemake(directory, MODEL, *QUICK)
    return load_file(directory / "results/models/sft/model.safetensors")


@pytest.mark.parametrize(
    ("asked", "nodes", "gpus"), [("gpu=2", 1, 2), ("gpu=0 nodes=2 gres=gpu:2", 2, 4)], ids=["node", "nodes"]
)
def test_one_job_one_launch_all_its_gpus(two_nodes, project, one_process, asked, nodes, gpus):
    before = {job["JobId"] for job in two_nodes.jobs()}
    resources = [f"train_sft:{resource}" for resource in asked.split()]
    two_nodes.snakemake(project, MODEL, "--set-resources", *resources, *QUICK[2:])
    log = (project / "logs/train_sft/sft.txt").read_text()

    jobs = [job for job in two_nodes.jobs() if job["JobId"] not in before]
    (job,) = [job for job in jobs if job["Rule"] == "train_sft"]
    assert (int(job["NumNodes"]), job["JobState"]) == (nodes, "COMPLETED")
    report = re.findall(r"process (\d) of (\d) on \S+, number (\d) there, with GPUs (\S+)", log)
    assert sorted(int(rank) for rank, *_ in report) == list(range(gpus)), "every rank once"
    assert {(size, devices) for _, size, _, devices in report} == {(str(gpus), "0,1")}
    assert [local for *_, local, _ in sorted(report)] == ["0", "1"] * nodes
    assert log.count("step 1/") == 1

    weights = load_file(project / "results/models/sft/model.safetensors")
    distance = max(float((weights[name] - one_process[name]).abs().max()) for name in weights)
    assert distance < 1e-4

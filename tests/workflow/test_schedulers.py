"""The examples for other schedulers are ones that Snakemake and they can read."""

import libcuda
import pytest
import yaml
from conftest import ROOT, copy_project, snakemake
from project_copy import PRETENDED_GPUS

from prefline.machine import device


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("project"))


@pytest.mark.slow
def test_the_pod_runs_a_target_that_there_is_with_the_gpus_of_its_node(project):
    _, job = yaml.safe_load_all((ROOT / "docs/kubernetes.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"][0] == "snakemake" and "command" not in container
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    said = snakemake(project, "-n", *container["args"][1:], "--resources", f"gpu={gpus}").stdout
    assert "rule train_adapter" in said and "gpu=1" in said


def test_what_the_next_policy_waits_for_goes_first(project):
    said = snakemake(project, "-n", "results/winrate.png").stdout
    jobs = said.split("\nrule ")[1:]
    first = {job.split(":")[0] for job in jobs if "priority: 1\n" in job}
    assert first >= {"sample_prompts", "generate_completions", "score_completions", "train_policy"}
    assert not first & {"answer_mt_bench", "judge_mt_bench", "compute_winrate"}


@pytest.mark.slow
def test_pbs_is_asked_for_what_each_rule_needs(project, tmp_path):
    """A stand-in for qsub: it notes its words and runs the job on the spot."""
    bin_folder = project / "bin"
    bin_folder.mkdir()
    qsub = bin_folder / "qsub"
    qsub.write_text(
        '#!/bin/sh\nprintf "%s " "$@" >>qsub.txt; echo >>qsub.txt; setsid sh "$0.job" "$@" &\necho 1\n'
    )
    (bin_folder / "qsub.job").write_text('for job; do :; done; exec sh "$job" >/dev/null 2>&1\n')
    qsub.chmod(0o755)
    profile = (project / "profiles/pbs/config.yaml").read_text().replace("qsub -V", f"{qsub} -V")
    (project / "profiles/pbs/config.yaml").write_text(profile)
    (project / "small.yaml").write_text(
        "models: {base: {source: data/policy}, sft: {training: {num_train_epochs: 0.02}}}"
    )
    words = ["--profile", "profiles/pbs", "results/models/sft", "--forceall", "--configfile", "small.yaml"]
    snakemake(project, *words)
    asked = (project / "qsub.txt").read_text()
    assert "-N check_data -l nodes=1:ppn=1:gpus=0,mem=2000mb,walltime=1800 " in asked
    assert "-N fetch_model -l nodes=1:ppn=1:gpus=0,mem=1100mb,walltime=7200 " in asked
    assert "-N train_sft -l nodes=1:ppn=2:gpus=1,mem=3000mb,walltime=86400 " in asked


@pytest.mark.slow
def test_gpu_jobs_of_this_machine_lease_its_gpus(project, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setenv("PYTHONPATH", PRETENDED_GPUS)
    (project / "tiny.yaml").write_text(
        "models: {base: {source: data/policy}, sft: {training: {num_train_epochs: 0.02}}}"
    )
    snakemake(project, "results/models/sft", "--forceall", "--configfile", "tiny.yaml")
    assert (project / "logs/train_sft/sft.txt").read_text().startswith("on GPU 7\n")


@pytest.mark.skipif(not device.for_cpus(device.facts([])), reason="builds for CUDA are installed")
@pytest.mark.slow
def test_what_the_gpus_lack_is_said_when_the_workflow_is_planned(project, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    planned = snakemake(project, "-n", "results/winrate.png")
    assert planned.stderr.count("GPUs 6, 7 cannot be used: torch ") == 1
    libcuda.compiled(tmp_path, version=12020)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    refused = snakemake(project, "-n", "results/winrate.png", "--sdm", "conda", check=False)
    assert refused.returncode == 1
    assert "runs CUDA 12.2, but torch is built for CUDA 13.0" in refused.stdout + refused.stderr

"""The other ways into the chain: a preference dataset, finished models, all pairs so far."""

import json
import shutil

import pytest
from conftest import QUICK, planned, snakemake

PAIRS = """
prompts:
  preferences: {use: true, num_pairs: 150}
runs: {rebel: null}
"""


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


@pytest.mark.slow
def test_a_preference_dataset_goes_straight_to_pairs(copy):
    (copy / "pairs.yaml").write_text(PAIRS)
    snakemake(copy, "results/models/dpo-1.json", *QUICK, "pairs.yaml")
    made = json.loads((copy / "results/training/dpo-1/metrics.json").read_text())
    assert made["eval_loss_before"] == pytest.approx(0.693147, abs=1e-4)
    assert made["eval_loss"] < made["eval_loss_before"]
    kept = json.loads((copy / "results/samples/sft/preferences.json").read_text())["kept"]
    assert sum(kept.values()) == 150


def test_rebel_without_rewards_is_one_sentence(copy):
    (copy / "pairs.yaml").write_text(PAIRS.replace("runs: {rebel: null}", ""))
    process = snakemake(copy, "results/models/rebel-1.json", *QUICK, "pairs.yaml", check=False)
    assert process.returncode != 0
    said = process.stdout + process.stderr
    assert "error: " in said and "reward" in said
    assert "Traceback" not in (copy / "logs/rebel-1/train_policy.txt").read_text()


def test_a_finished_model_is_not_trained(copy):
    shutil.copytree(copy / "results/models/sft", copy / "finished_sft")
    (copy / "mine.yaml").write_text("models: {sft: {source: finished_sft}}\ntrain: {learning_rate: 2.0e-4}")
    process = snakemake(copy, "results/models/sft.json", *QUICK, "mine.yaml", "-n", "--forceall")
    planned = process.stdout + process.stderr
    assert "fetch_model" in planned
    assert "train_sft" not in planned and "pretrain" not in planned


def test_a_model_that_was_fetched_is_trained_once_the_config_says_so(finished, project):
    """Training has more outputs than fetching: the model that is there is not the one that is asked for."""
    shutil.copytree(finished / "results/models/sft", project / "finished_sft")
    (project / "mine.yaml").write_text(
        "models: {sft: {source: finished_sft}}\ntrain: {learning_rate: 2.0e-4}"
    )
    snakemake(project, "results/models/sft.json", *QUICK, "mine.yaml")
    jobs = planned(project, *QUICK, "--", "results/models/sft.json")
    assert jobs == {"check_data": 2, "check_model": 1, "fetch_model": 1, "pretrain": 1, "train_sft": 1}
    assert planned(project, *QUICK, "mine.yaml", "--", "results/models/sft.json") == {}


@pytest.mark.slow
def test_all_pairs_so_far(project):
    (project / "all.yaml").write_text("runs: {rebel: {data: all}}")
    process = snakemake(project, "results/models/rebel-2.json", "--configfile", "all.yaml", "-n")
    planned = process.stdout + process.stderr
    assert "results/samples/sft/ref_logps/rebel-1/0000.parquet" in planned
    assert "results/samples/rebel-1/ref_logps/rebel-1/0000.parquet" in planned

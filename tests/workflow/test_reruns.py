"""An edit re-runs what depends on it and nothing else; a second run has nothing to do."""

import json
import math
import re
import shutil

import pytest
import yaml
from conftest import QUICK, snakemake


def planned(directory, *overlays):
    """{rule: number of jobs} that Snakemake would run with further config files."""
    process = snakemake(directory, *QUICK, *overlays, "-n")
    table = re.search(r"^Job stats:\n.*?\n-+.*?\n(.*?)^total", process.stdout + process.stderr, re.S | re.M)
    if not table:
        assert "Nothing to be done" in process.stdout + process.stderr
        return {}
    rows = [line.split() for line in table[1].splitlines() if line.strip()]
    return {rule: int(count) for rule, count in rows if rule != "all"}


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def edit(directory, old, new, file="config.yaml"):
    text = (directory / file).read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
    (directory / file).write_text(text.replace(old, new))


DOWNSTREAM_OF_ONE_POLICY = {
    "train_policy": 1,
    "answer_mt_bench": 1,
    "judge_mt_bench": 1,
    "compute_winrate": 1,
    "plot_winrate": 1,
    "answer_vibe_check": 1,
    "write_vibe_check": 1,
}


def test_nothing_to_do(finished):
    assert planned(finished) == {}


def test_beta_of_one_run(copy):
    edit(copy, "    beta: 0.1\n", "    beta: 0.3\n")
    assert planned(copy) == DOWNSTREAM_OF_ONE_POLICY


def test_new_run(copy):
    new = "dpo_hot: {iterations: 1, init: initial, reference: initial, data: current, beta: 0.5}"
    edit(copy, "runs:\n", f"runs:\n  {new}\n")
    assert planned(copy) == DOWNSTREAM_OF_ONE_POLICY


def test_a_sweep_over_losses(finished):
    """What was sampled, ranked and scored serves every loss."""
    everyone = {"compute_winrate": 1, "plot_winrate": 1, "write_vibe_check": 1}
    six = {rule: 6 * jobs for rule, jobs in DOWNSTREAM_OF_ONE_POLICY.items()} | everyone
    assert planned(finished, "recipes/six_losses.yaml") == six


@pytest.mark.long
def test_the_sweep_trains(copy):
    pairs = (copy / "results/samples/sft/tokenized.parquet").stat().st_mtime_ns
    snakemake(copy, *QUICK, "recipes/six_losses.yaml")
    config = yaml.safe_load((copy / "recipes/six_losses.yaml").read_text())
    assert len(config["runs"]) == 6
    for run in config["runs"]:
        made = json.loads((copy / f"results/training/{run}-1/metrics.json").read_text())
        assert math.isfinite(made["eval_loss"])
        assert made["eval_loss"] != made["eval_loss_before"]
    policies = json.loads((copy / "results/winrate.json").read_text())["policies"]
    assert {f"{run}-1" for run in config["runs"]} <= set(policies)
    assert (copy / "results/samples/sft/tokenized.parquet").stat().st_mtime_ns == pairs


def test_more_prompts_leave_full_shards_alone(copy):
    """24 prompts fill a shard of 16 and half of the next: only the second one grows to 32.

    The policy trained from them is another one, so all three shards that it answers are made again.
    """
    edit(copy, "num_prompts: 24", "num_prompts: 32", file="tests/workflow/quick.yaml")
    assert planned(copy)["generate_completions"] == 1 + 3


def test_plot_code(copy):
    with open(copy / "scripts/plot_winrate.py", "a") as file:
        file.write("\nAN_EDIT = True\n")
    assert planned(copy) == {"plot_winrate": 1}

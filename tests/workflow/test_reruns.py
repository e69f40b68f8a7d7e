"""An edit re-runs what depends on it and nothing else; a second run has nothing to do."""

import json
import math
import shutil

import pytest
import yaml
from conftest import QUICK, planned, snakemake


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def edit(directory, old, new, file="config.yaml"):
    text = (directory / file).read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
    (directory / file).write_text(text.replace(old, new))


# What a policy's training changes: of itself, of how it answers and what it says to held-out prompts, …
OF_ONE_POLICY = {
    "train_policy": 1,
    "plot_training": 1,
    "answer_mt_bench": 1,
    "judge_mt_bench": 1,
    "answer_vibe_check": 1,
    "sample_prompts": 1,
    "generate_completions": 1,
    "score_completions": 1,
    "measure_drift": 1,
}
# … and of what all policies stand in.
OF_ALL = {"compute_winrate": 1, "plot_winrate": 1, "write_vibe_check": 1, "plot_drift": 1, "write_report": 1}
POLICIES = 3


def test_nothing_to_do(finished):
    assert planned(finished, *QUICK) == {}


def test_beta_of_one_run(copy):
    """The prompts that it is asked are those that it was asked before."""
    edit(copy, "    beta: 0.1\n", "    beta: 0.3\n")
    of_one = {rule: jobs for rule, jobs in OF_ONE_POLICY.items() if rule != "sample_prompts"}
    assert planned(copy, *QUICK) == {**of_one, **OF_ALL, "write_model_card": POLICIES}


def test_new_run(copy):
    new = "dpo_hot: {iterations: 1, init: initial, reference: initial, data: current, beta: 0.5}"
    edit(copy, "runs:\n", f"runs:\n  {new}\n")
    assert planned(copy, *QUICK) == {**OF_ONE_POLICY, **OF_ALL, "write_model_card": POLICIES + 1}


def test_a_sweep_over_losses(finished):
    """What was sampled, ranked and scored serves every loss."""
    six = {rule: 6 * jobs for rule, jobs in OF_ONE_POLICY.items()}
    six |= {**OF_ALL, "write_model_card": POLICIES + 6}
    assert planned(finished, *QUICK, "recipes/six_losses.yaml") == six
    to_the_picture = ("train_policy", "answer_mt_bench", "judge_mt_bench")
    assert planned(finished, *QUICK, "recipes/six_losses.yaml", "--", "results/winrate.png") == {
        **dict.fromkeys(to_the_picture, 6), "compute_winrate": 1, "plot_winrate": 1,
    }  # fmt: skip


def test_seeds_share_all_but_their_trainings(finished):
    """The policies of two seeds more are trained and judged; nothing of the start policy is made again."""
    seeds = {"runs": {"dpo": {"seeds": [1, 2, 3]}, "rebel": None}}
    overlay = finished.parent / "seeds.yaml"
    overlay.write_text(yaml.safe_dump(seeds))
    three = {rule: 3 * jobs for rule, jobs in OF_ONE_POLICY.items()}
    assert planned(finished, *QUICK, str(overlay)) == {**three, **OF_ALL, "write_model_card": 3}


def test_each_seed_of_a_run_with_iterations_is_a_chain_of_policies(finished):
    overlay = finished.parent / "chains.yaml"
    overlay.write_text(yaml.safe_dump({"runs": {"dpo": None, "rebel": {"seeds": [4, 5]}}}))
    jobs = planned(finished, *QUICK, str(overlay), "--", "results/winrate.png")
    assert jobs["train_policy"] == jobs["answer_mt_bench"] == jobs["judge_mt_bench"] == 4
    # The first policies of both chains are sampled and ranked, in three shards, and score their own pairs.
    assert jobs["generate_completions"] == 2 * 3
    assert jobs["build_preferences"] == jobs["tokenize_preferences"] == jobs["compute_ref_logps"] == 2


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

    The policies trained from them are others, so all shards that they answer are made again: three of one
    whose completions train the next, the held-out one of the other two.
    """
    edit(copy, "num_prompts: 24", "num_prompts: 32", file="tests/workflow/quick.yaml")
    assert planned(copy, *QUICK)["generate_completions"] == 1 + 3 + 2


def test_plot_code(copy):
    with open(copy / "scripts/mt_bench/plot_winrate.py", "a") as file:
        file.write("\nAN_EDIT = True\n")
    assert planned(copy, *QUICK) == {"plot_winrate": 1, "write_report": 1}

"""Runs of each method have made what their method needs, and are judged like the others."""

import json

import pytest
import yaml
from conftest import QUICK, planned, snakemake

RUN = {"iterations": 2, "init": "previous", "reference": "initial", "data": "current"}


def planned_for(project, **keys):
    """{rule: number of jobs} for the win rates of a single run with these keys, from nothing."""
    overlay = {"runs": {"dpo": None, "rebel": None, "own": RUN | keys}}
    (project / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    return planned(project, "results/winrate.png", *QUICK, "overlay.yaml")


PAIRS = {
    "generate_completions",
    "score_completions",
    "build_preferences",
    "tokenize_preferences",
}


@pytest.mark.slow
def test_what_samples_while_it_trains_needs_prompts_and_models_alone(project):
    jobs = planned_for(project, method="rloo", global_batch_size=16)
    assert jobs["train_online"] == 2
    assert jobs["sample_prompts"] == 2 * 3, "two shards of fresh prompts each, and one that is held out"
    assert jobs["train_reward_model"] == 1
    assert not jobs.keys() & (PAIRS | {"train_policy", "train_kto", "compute_ref_logps"})


@pytest.mark.slow
@pytest.mark.parametrize(("method", "rule"), [("grpo", "train_online_adapter"), ("kto", "train_kto_adapter")])
def test_adapters_are_merged_before_the_next_iteration_starts_from_them(project, method, rule):
    peft = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}
    jobs = planned_for(project, method=method, global_batch_size=16, peft=peft)
    assert jobs[rule] == jobs["merge_adapter"] == 2
    assert not jobs.keys() & {"train_policy", "train_online", "train_kto"}


@pytest.mark.slow
def test_kto_needs_pairs_and_no_log_probabilities(project):
    jobs = planned_for(project, method="kto")
    assert jobs["train_kto"] == jobs["tokenize_preferences"] == 2
    assert jobs.keys() >= PAIRS
    assert not jobs.keys() & {"train_policy", "train_online", "compute_ref_logps"}


@pytest.mark.long
def test_every_method_trains_and_is_judged(project):
    small = {run: {"global_batch_size": 16} for run in ("ppo", "rloo", "grpo", "kto")}
    (project / "small.yaml").write_text(
        yaml.safe_dump({"runs": small, "online": {"max_completion_length": 24}})
    )
    snakemake(project, *QUICK, "recipes/four_methods.yaml", "small.yaml")
    recipe = yaml.safe_load((project / "recipes/four_methods.yaml").read_text())["runs"]
    policies = {f"{run}-1" for run, keys in recipe.items() if keys}
    winrate = json.loads((project / "results/winrate.json").read_text())
    assert set(winrate["policies"]) == policies | {"dpo-1"}
    for policy in policies - {"kto-1"}:
        metrics = json.loads((project / f"results/training/{policy}/metrics.json").read_text())
        assert metrics["eval_kl_before"] == pytest.approx(0, abs=1e-3)
        assert metrics["eval_kl"] != 0
    again = snakemake(project, *QUICK, "recipes/four_methods.yaml", "small.yaml", "-n")
    assert "Nothing to be done" in again.stdout + again.stderr

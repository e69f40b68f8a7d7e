"""The main job on the embedded default, as a newcomer runs it, and what must be true of its results."""

import json

import pytest
import yaml
from conftest import ROOT, snakemake

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def results(one_at_a_time):
    """The project's own results folder: made here, or before by `make results/winrate.png`."""
    with one_at_a_time("root"):
        snakemake(ROOT)
    return ROOT / "results"


def policies():
    runs = yaml.safe_load((ROOT / "config.yaml").read_text())["runs"]
    return [f"{name}-{t}" for name, run in runs.items() for t in range(1, run["iterations"] + 1)]


def test_every_policy_beats_the_start_policy(results):
    winrate = json.loads((results / "winrate.json").read_text())
    assert winrate["policies"] == policies()
    for policy in policies():
        overall = winrate["win_rates"][policy]["overall"]
        assert overall["win"] + overall["tie"] + overall["loss"] == overall["matches"] == 160
        assert overall["error"] == 0
        assert overall["win_rate_adjusted"] >= 0.70
        assert overall["ci_low"] > 0.5


def test_the_picture_is_one(results):
    assert (results / "winrate.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (results / "winrate.png").stat().st_size > 20_000


def test_upstream_models_learnt_something(results):
    def metrics(name):
        return json.loads((results / "training" / name / "metrics.json").read_text())

    assert metrics("base")["eval_perplexity"] < metrics("base")["eval_perplexity_before"] / 10
    assert metrics("sft")["eval_loss"] < metrics("sft")["eval_loss_before"]
    assert metrics("reward_model")["eval_accuracy"] > 0.8


def test_training_starts_where_theory_says(results):
    """Before the first step policy and reference are one: DPO's loss is ln 2."""
    before = json.loads((results / "training/dpo-1/metrics.json").read_text())
    assert before["eval_loss_before"] == pytest.approx(0.693147, abs=1e-4)


def test_the_vibe_check_shows_every_policy(results):
    page = (results / "vibe_check.md").read_text()
    assert page.count("\n## ") >= 12
    for policy in ["sft", *policies()]:
        assert f"**{policy}**" in page


def test_nothing_is_left_to_do(results):
    process = snakemake(ROOT, "-n")
    assert "Nothing to be done" in process.stdout + process.stderr

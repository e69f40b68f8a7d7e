"""Repetitions of a training under other seeds: their mean, its interval and tests, and how they are told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_statistics import match

from prefline.judging import comparisons, repetitions, winrate


def judgments(outcomes, policy):
    """Two turns for each question, of a policy against the start policy."""
    return [
        match(number // 2, number % 2 + 1, outcome, models=(policy, "sft"))
        for number, outcome in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("t", "freedom", "p"),
    [(12.7062, 1, 0.05), (4.3027, 2, 0.05), (5.8409, 3, 0.01), (2.0423, 30, 0.05), (1.96, 1e9, 0.05)],
)
def test_the_tail_is_students(t, freedom, p):
    assert winrate.tail(t, freedom) == pytest.approx(p, rel=0.01)
    assert winrate.tail(0.0, freedom) == 1


@given(st.integers(2, 4), st.floats(0.02, 0.4), st.integers(0, 2**32 - 1))
def test_an_interval_without_one_half_is_a_p_below_005(seeds, spread, seed):
    """With two or three seeds the degrees of freedom are fractions, often below 2."""
    random = np.random.default_rng(seed)
    sums = np.clip(random.normal(random.uniform(0.3, 0.9), spread, (seeds, 1, 30)), 0, 1)
    sums = np.clip(sums + random.normal(0, spread, (seeds, 1, 1)), 0, 1)
    _, low, high, p = repetitions.estimate(sums, np.ones_like(sums), 4)
    assert (low <= 0.5 <= high) == (p >= 0.05) or abs(p - 0.05) < 1e-3


def test_the_mean_and_the_spread_are_those_of_the_seeds_rates():
    """A seed whose judge lost matches counts as much as another."""
    rows = {
        "dpo-s1-1": judgments(["win"] * 4 + ["loss"] * 4, "dpo-s1-1"),
        "dpo-s2-1": judgments(["win", "win", "win", "tie"] + ["error"] * 4, "dpo-s2-1"),
    }
    found = repetitions.summary(rows)
    assert found["win_rate_adjusted"] == pytest.approx((0.5 + 0.875) / 2)
    assert found["sd"] == pytest.approx(0.375 / 2**0.5)
    assert (found["lowest"], found["highest"], found["matches"], found["error"]) == (0.5, 0.875, 12, 4)
    assert found["ci_low"] < found["win_rate_adjusted"] < found["ci_high"]
    one = repetitions.summary({"dpo-s1-1": rows["dpo-s1-1"]})
    alone = winrate.summary(rows["dpo-s1-1"])
    assert one["sd"] is None and {name: one[name] for name in alone} == alone
    lost = repetitions.summary({**rows, "dpo-s3-1": judgments(["error"] * 8, "dpo-s3-1")})
    assert lost["win_rate_adjusted"] is None and lost["p_value"] == 1


def test_equal_seeds_add_no_matches():
    """Three copies of one policy know no more than one: a pooled interval would be narrower by √3."""
    random = np.random.default_rng(1)
    outcomes = random.choice(["win", "tie", "loss"], size=160)
    one = winrate.summary(judgments(outcomes, "dpo-s1-1"))
    rows = {f"dpo-s{seed}-1": judgments(outcomes, f"dpo-s{seed}-1") for seed in (1, 2, 3)}
    found = repetitions.summary(rows)
    assert found["ci_high"] - found["ci_low"] == pytest.approx(one["ci_high"] - one["ci_low"], rel=0.05)


def simulated(random, seeds, of_seed, shift=0.0, questions=None):
    """Return outcomes [seeds, 160] of policies whose rates differ by seed and by question."""
    questions = random.normal(0, 0.2, (80, 1)) if questions is None else questions
    rates = 0.5 + shift + random.normal(0, of_seed, (seeds, 1, 1)) + questions
    won = random.random((seeds, 80, 2)) < rates
    return np.where(won, "win", "loss").reshape(seeds, -1)


def test_the_interval_covers_the_choice_of_questions_and_of_seeds():
    """The questions' interval of one training misses the true rate in a third of the experiments."""
    random, covered, alone = np.random.default_rng(3), 0, 0
    for _ in range(200):
        outcomes = simulated(random, 3, 0.07)
        rows = {f"a-s{seed}-1": judgments(one, f"a-s{seed}-1") for seed, one in enumerate(outcomes)}
        found = repetitions.summary(rows)
        covered += found["ci_low"] <= 0.5 <= found["ci_high"]
        one = winrate.summary(rows["a-s0-1"])
        alone += one["ci_low"] <= 0.5 <= one["ci_high"]
    assert covered / 200 >= 0.9 and alone / 200 <= 0.75


def test_runs_are_compared_over_their_seeds_and_seeds_not_with_each_other():
    """Of two equal runs, 5 % differ; of the seeds' own policies, many more."""
    random, differ = np.random.default_rng(4), 0
    for _ in range(100):
        questions, rows = random.normal(0, 0.2, (80, 1)), {}
        for run in ("a", "b"):
            for seed, one in enumerate(simulated(random, 3, 0.07, questions=questions)):
                rows[f"{run}-s{seed}-1"] = judgments(one, f"{run}-s{seed}-1")
        found = comparisons.compare(list(rows), "sft", rows)
        assert [(one["policy"], one["other"], one["by"]) for one in found] == [
            ("a-1", "b-1", "start"), ("a-1", "sft", "games"), ("b-1", "sft", "games"),
        ]  # fmt: skip
        differ += found[0]["p_value"] < 0.05
        excludes = not found[0]["ci_low"] <= 0 <= found[0]["ci_high"]
        assert excludes == (found[0]["p_value"] < 0.05) or abs(found[0]["p_value"] - 0.05) < 2e-3
    assert differ <= 14


def test_iterations_of_a_run_are_compared_seed_by_seed():
    """Each seed gains 15 points, and the seeds differ by more: of independent runs nothing would be seen."""
    rows = {}
    for seed, wins in ((1, 20), (2, 50), (3, 80)):
        for iteration, more in ((1, 0), (2, 15)):
            policy = f"a-s{seed}-{iteration}"
            rows[policy] = judgments(["win"] * (wins + more) + ["loss"] * (100 - wins - more), policy)
    (found,) = [one for one in comparisons.compare(list(rows), "sft", rows) if one["other"] == "a-2"]
    assert found["policy"] == "a-1" and found["advantage"] == pytest.approx(-0.15)
    assert found["ci_high"] < 0 and found["p_value"] < 0.01


def test_an_advantage_by_games_with_each_other_and_of_a_run_over_a_single_policy():
    rows = {
        "a-s1-1": judgments(["win", "win", "win", "tie"] * 5, "a-s1-1"),
        "a-s2-1": judgments(["win", "tie", "win", "win"] * 5, "a-s2-1"),
        "b-1": judgments(["loss", "tie", "loss", "loss"] * 5, "b-1"),
    }
    by_start = comparisons.compare(list(rows), "sft", rows)[0]
    assert (by_start["policy"], by_start["other"], by_start["matches"]) == ("a-1", "b-1", 40)
    assert by_start["advantage"] == pytest.approx(0.875 - 0.125) and by_start["p_value"] < 0.01
    pairs = [
        match(number // 2, number % 2 + 1, "loss", models=("b-1", f"a-s{seed}-1"))
        for seed in (1, 2)
        for number in range(20)
    ]
    direct = comparisons.compare(list(rows), "sft", rows, pairs)[0]
    assert direct["by"] == "games" and direct["advantage"] == pytest.approx(0.5)

"""What is told of judgments beside the win rate: by hand, and in simulations whose truth is known."""

import csv
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefline.judging import comparisons, verbosity, winrate
from prefline.judging.agreement import agreement
from scripts.mt_bench import compute_winrate

WINNERS = {"win": "model_1", "loss": "model_2", "tie": "tie", "error": "error"}

# What a judge says of a game whose winner, seen from model 1's side, this is.
WORDS = {"model_1": "[[A]]", "model_2": "[[B]]", "tie": "[[C]]"}


def match(question_id, turn, result, models=("dpo-1", "sft"), games=None):
    first, second = games or (WINNERS[result], WINNERS[result])
    return {
        "question_id": question_id,
        "turn": turn,
        "model_1": models[0],
        "model_2": models[1],
        "g1_winner": first,
        "g2_winner": second,
        "g1_judgment": WORDS.get(first, "?"),
        "g2_judgment": WORDS.get(second, "?"),
        "judge": ["judge", "pair"],
    }


def matches_of(results, **options):
    return [match(number // 2, number % 2 + 1, result, **options) for number, result in enumerate(results)]


# Sign-flip test.


def test_p_by_hand():
    assert winrate.p_value([match(n, 1, "win") for n in range(5)]) == 2 / 32
    assert winrate.p_value(matches_of(["win", "win", "win", "win"])) == 2 / 4  # two questions, not four
    assert winrate.p_value(matches_of(["win", "loss"])) == 1
    assert winrate.p_value(matches_of(["win", "tie", "error", "loss"])) == 1
    assert winrate.p_value(matches_of(["tie", "error"])) == winrate.p_value([]) == 1


@given(st.lists(st.sampled_from(["win", "tie", "loss", "error"]), max_size=18))
def test_p_is_the_share_of_all_changes_of_signs(results):
    margins = {}
    for number, result in enumerate(results):
        points = {"win": 1, "loss": -1}.get(result, 0)
        margins[number // 2] = margins.get(number // 2, 0) + points
    values = list(margins.values())
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, values, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    expected = sum(one >= abs(sum(values)) for one in sums) / len(sums)
    assert winrate.p_value(matches_of(results)) == pytest.approx(expected)


def test_p_is_small_no_oftener_than_it_says():
    random = np.random.default_rng(3)
    small = 0
    for _ in range(300):
        strength = random.beta(2, 2, size=80)
        won = random.random((80, 2)) < strength[:, None]
        results = ["win" if one else "loss" for one in won.ravel()]
        small += winrate.p_value(matches_of(results)) <= 0.05
    assert small / 300 <= 0.075


# Intervals.


def questions_of(random, number, rate, tied, alike):
    """(wins, ties, losses) of questions with two turns; alike: share of questions whose turns end alike."""
    tied = min(tied, 2 * min(rate, 1 - rate))
    outcomes = random.choice(3, p=[rate - tied / 2, tied, 1 - rate - tied / 2], size=(number, 2))
    outcomes[:, 1] = np.where(random.random(number) < alike, outcomes[:, 0], outcomes[:, 1])
    return np.stack([(outcomes == kind).sum(axis=1) for kind in range(3)], axis=1)


@pytest.mark.parametrize("number", [10, 80])
def test_the_interval_covers_the_truth_as_often_as_it_says(number):
    """True rates from 0.5 to 0.99, with and without ties, with dependent and independent turns."""
    random = np.random.default_rng(7)
    covered = {}
    for rate in (0.5, 0.7, 0.9, 0.97, 0.99):
        for tied, alike in [(0, 0), (0, 0.5), (0.3, 0.3), (0.3, 0.8)]:
            intervals = [
                winrate.interval(questions_of(random, number, rate, tied, alike)) for _ in range(600)
            ]
            covered[rate, tied, alike] = np.mean([low <= rate <= high for low, high in intervals])
    assert min(covered.values()) >= 0.91 and max(covered.values()) <= 0.995
    assert 0.935 <= np.mean(list(covered.values())) <= 0.975


@pytest.mark.parametrize("rate", [0.5, 0.7, 0.9])
def test_the_interval_covers_the_truth_for_questions_with_one_to_five_turns(rate):
    """Ten questions whose turns all end alike: as many independent outcomes, of unequal weights."""
    random, covered = np.random.default_rng(8), 0
    for _ in range(1000):
        turns, won = random.integers(1, 6, size=10), random.random(10) < rate
        low, high = winrate.interval(np.stack([turns * won, 0 * turns, turns * ~won], axis=1))
        covered += low <= rate <= high
    assert 0.935 <= covered / 1000 <= 0.985


# Who beats whom.


def test_comparisons_by_hand():
    rows = {
        "dpo-1": matches_of(["win", "win", "tie", "loss"]),
        "rebel-1": matches_of(["win", "loss", "loss", "error"], models=("rebel-1", "sft")),
    }
    found = comparisons.compare(["dpo-1", "rebel-1"], "sft", rows)
    assert [(one["policy"], one["other"], one["by"]) for one in found] == [
        ("dpo-1", "rebel-1", "start"), ("dpo-1", "sft", "games"), ("rebel-1", "sft", "games"),
    ]  # fmt: skip
    by_start = found[0]
    assert by_start["matches"] == 3 and by_start["advantage"] == pytest.approx((0 + 1 + 0.5) / 3)
    assert by_start["p_value"] == 2 / 4  # margins 2 and 1: all signs alike
    assert found[1]["advantage"] == pytest.approx(winrate.summary(rows["dpo-1"])["win_rate_adjusted"] - 0.5)
    games = matches_of(["loss"] * 4, models=("rebel-1", "dpo-1"))
    direct = comparisons.compare(["dpo-1", "rebel-1"], "sft", rows, games)[0]
    assert (direct["by"], direct["advantage"], direct["matches"]) == ("games", 0.5, 4)
    nothing = {name: matches_of(["error"] * 2, models=(name, "sft")) for name in rows}
    empty = comparisons.compare(["dpo-1", "rebel-1"], "sft", nothing)[0]
    assert (empty["advantage"], empty["ci_low"], empty["p_value"], empty["p_corrected"]) == (None, None, 1, 1)


def test_holms_correction_is_the_textbooks():
    assert comparisons.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert comparisons.holm([0.5, 0.9]) == [1, 1] and comparisons.holm([]) == []


def test_six_equal_policies_seldom_beat_each_other_after_the_correction():
    random = np.random.default_rng(5)
    beaten = plain = 0
    for _ in range(60):
        hard = random.beta(1, 1, size=80)
        rows = {}
        for name in [f"run-{number}" for number in range(6)]:
            won = random.random((80, 2)) < hard[:, None]
            rows[name] = matches_of(["win" if one else "loss" for one in won.ravel()], models=(name, "sft"))
        found = [one for one in comparisons.compare(list(rows), "sft", rows) if one["other"] != "sft"]
        plain += min(one["p_value"] for one in found) < 0.05
        beaten += min(one["p_corrected"] for one in found) < 0.05
    assert plain >= 8 and beaten <= 7


def test_the_interval_of_an_advantage_covers_the_truth():
    """Two policies with rates 0.6 and 0.5 on questions that are equally hard for both."""
    random, covered = np.random.default_rng(2), 0
    for _ in range(400):
        hard = random.uniform(-0.3, 0.3, size=(40, 1))
        points = [
            {(number // 2, number % 2): int(won) * 2 - 1
             for number, won in enumerate((random.random((40, 2)) < rate + hard).ravel())}
            for rate in (0.6, 0.5)
        ]  # fmt: skip
        one = comparisons.advantage(comparisons.difference(*points), most=2)
        covered += one["ci_low"] <= 0.1 <= one["ci_high"]
    assert 0.92 <= covered / 400 <= 0.98


def test_the_interval_of_position_bias_by_simulation():
    """A judge that takes the first answer in a fifth of the games, whatever they say."""
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        rows = []
        for number, draw in enumerate(random.random(160)):
            fair = "model_1" if draw < 0.5 else "model_2"
            games = [
                "model_1" if random.random() < 0.2 else fair,
                "model_2" if random.random() < 0.2 else fair,
            ]
            rows.append(match(number // 2, number % 2 + 1, None, games=games))
        low, high = winrate.position_bias_interval(rows)
        # First and second game differ towards the first place if one of them was taken by it: 0.2.
        covered += low <= 0.2 <= high
    assert 0.92 <= covered / 400 <= 0.98
    assert winrate.position_bias_interval([match(1, 1, "error")]) == (None, None)


# Agreement.


def test_agreement_by_hand():
    """Cohen's kappa of the table ((2, 1), (1, 2)) of wins and losses is 1/3: 4/6 against a chance of 1/2."""
    first = matches_of(["win", "win", "win", "loss", "loss", "loss", "error", "tie"])
    second = matches_of(["win", "win", "loss", "win", "loss", "loss", "win", "error"])
    assert agreement(first, second) == {
        "matches": 6, "share": pytest.approx(4 / 6), "kappa": pytest.approx(1 / 3),
        "opposite": pytest.approx(2 / 6),
    }  # fmt: skip
    assert agreement(first, []) == {"matches": 0, "share": None, "kappa": None, "opposite": None}
    assert agreement(matches_of(["tie", "tie"]), matches_of(["tie", "tie"]))["kappa"] is None


@given(st.lists(st.sampled_from(["win", "tie", "loss"]), min_size=2, max_size=30), st.randoms())
def test_agreement_is_the_same_both_ways_and_full_with_itself(results, random):
    others = random.sample(results, len(results))
    first, second = matches_of(results), matches_of(others)
    assert agreement(first, second) == agreement(second[::-1], first)
    assert agreement(first, first)["share"] == 1
    assert agreement(first, first)["kappa"] in (None, pytest.approx(1))


# Length.


def test_longer_wins_by_hand():
    scores, differences = np.array([1, 1, 0, 0.5, 0, 1.0]), np.array([5, -2, -3, 9, 4, 0.0])
    assert verbosity.longer_wins(scores, differences) == 2 / 4
    assert verbosity.longer_wins(np.array([0.5]), np.array([3.0])) is None


def test_at_equal_lengths_the_controlled_rate_is_the_rate():
    scores = np.array([1, 1, 0.5, 0])
    theta, phi = verbosity.fit(scores, np.zeros(4))
    assert 1 / (1 + np.exp(-theta[0])) == pytest.approx(0.625) and phi[0] == 0


def test_the_fit_solves_its_own_equations():
    """At the least cross-entropy the residuals sum to 0, and those times the length term to phi's penalty."""
    random = np.random.default_rng(0)
    scores, differences = random.choice([0, 0.5, 1], size=40), random.normal(5, 20, size=40)
    theta, phi = verbosity.fit(scores, differences)
    lengths = np.tanh(differences / differences.std())
    residuals = 1 / (1 + np.exp(-(theta[0] + phi[0] * lengths))) - scores
    assert residuals.sum() == pytest.approx(0, abs=1e-6)
    assert residuals @ lengths == pytest.approx(-40 * verbosity.PENALTY * phi[0], abs=1e-6)


def test_more_questions_of_the_same_kind_give_the_same_controlled_rate():
    random = np.random.default_rng(3)
    scores, differences = random.choice([0, 0.5, 1], size=40), random.normal(5, 20, size=40)
    once, twice = (verbosity.fit(np.tile(scores, n), np.tile(differences, n)) for n in (1, 2))
    assert once[0] == pytest.approx(twice[0]) and once[1] == pytest.approx(twice[1])


def test_a_model_that_always_writes_less_is_not_lifted_without_limit():
    """The published case: shorter in 99 % of matches. Without a penalty, phi takes the whole difference."""
    random, errors = np.random.default_rng(0), []
    for _ in range(50):
        differences = random.normal(-900, 400, size=805)
        rate = 1 / (1 + np.exp(-(-1.3 + 0.7 * np.tanh(differences / differences.std()))))
        scores = (random.random(805) < rate).astype(float)
        errors.append(1 / (1 + np.exp(-verbosity.fit(scores, differences)[0][0])) - 1 / (1 + np.exp(1.3)))
    assert np.abs(errors).max() < 0.12 and abs(np.mean(errors)) < 0.07


@pytest.mark.parametrize(
    ("differences", "overlap"), [([5, -5, 5, 5], 0.25), ([5] * 9, 0), ([0, 0], 1), ([-3] * 19 + [3], 0.05)]
)
def test_lengths_that_hardly_overlap_are_flagged(differences, overlap):
    rows = [match(number, 1, "win") for number in range(len(differences))]
    policy = {(number, 1): 10 + difference for number, difference in enumerate(differences)}
    found = verbosity.summary(rows, policy, dict.fromkeys(policy, 10), 20, 1)
    assert found["overlap"] == overlap and found["extrapolated"] == (overlap < 0.1)


def test_a_judge_that_only_counts_words_leaves_nothing_at_equal_length():
    """Longer answers win by their length alone: the rate is far above a half, the controlled one is not."""
    random = np.random.default_rng(2)
    rows, words, start = [], {}, {}
    for number in range(400):
        key = (number // 2, number % 2 + 1)
        words[key], start[key] = 100 + int(random.normal(25, 30)), 100
        rate = 1 / (1 + np.exp(-2 * np.tanh((words[key] - 100) / 30)))
        rows.append(match(*key, "win" if random.random() < rate else "loss"))
    found = verbosity.summary(rows, words, start, 200, 1)
    assert winrate.summary(rows)["win_rate_adjusted"] > 0.64
    assert found["ci_low"] < 0.5 < found["ci_high"] and abs(found["length_controlled"] - 0.5) < 0.12
    assert found["length_slope"] > 1 and found["longer_wins"] > 0.7


@given(st.lists(st.tuples(st.sampled_from(["win", "tie", "loss", "error"]), st.integers(0, 60)), max_size=20))
def test_the_controlled_rate_is_a_rate_and_turns_with_the_models(pairs):
    rows = matches_of([result for result, _ in pairs])
    words = {(row["question_id"], row["turn"]): number for row, (_, number) in zip(rows, pairs, strict=True)}
    start = dict.fromkeys(words, 30)
    found = verbosity.summary(rows, words, start, 20, 1)
    turned = verbosity.summary(winrate.of_model(rows, "sft"), start, words, 20, 1)
    if found["length_controlled"] is None:
        assert turned["length_controlled"] is None
        return
    assert 0 <= found["ci_low"] <= found["ci_high"] <= 1
    assert found["length_controlled"] == pytest.approx(1 - turned["length_controlled"], abs=1e-6)
    assert found["length_slope"] == pytest.approx(turned["length_slope"], abs=1e-5)


# Sides.


def test_a_match_seen_from_the_other_side():
    row = match(1, 1, None, games=("model_1", "tie"))
    (turned,) = winrate.of_model([row], "sft")
    assert (turned["model_1"], turned["model_2"]) == ("sft", "dpo-1")
    assert (turned["g1_winner"], turned["g2_winner"]) == ("tie", "model_2")
    assert winrate.position_bias([turned]) == winrate.position_bias([row])
    assert winrate.of_model([row], "dpo-1") == [row] and winrate.of_model([row], "other") == []


def test_no_interval_is_a_bare_point_or_leaves_its_scale():
    """One question, and questions that all end alike."""
    for number, points in itertools.product((1, 2, 5, 80), (1, 0, -1)):
        result = {1: "win", 0: "tie", -1: "loss"}[points]
        rows = [match(question, turn, result) for question in range(number) for turn in (1, 2)]
        one = comparisons.advantage(comparisons.points_of(rows))
        assert -0.5 <= one["ci_low"] < one["ci_high"] <= 0.5 and one["advantage"] == points / 2
        same = comparisons.advantage(dict.fromkeys(comparisons.points_of(rows), 2 * points), most=2)
        assert -1 <= same["ci_low"] < same["ci_high"] <= 1 and same["advantage"] == points
        low, high = winrate.position_bias_interval(rows)
        assert -1 <= low < 0 < high <= 1


@pytest.mark.parametrize("number", [10, 80])
@pytest.mark.parametrize("rate", [0.7, 0.97, 0.99])
def test_the_interval_of_games_with_each_other_is_the_win_rates(number, rate):
    random = np.random.default_rng(6)
    for _ in range(20):
        won = random.random((number, 2)) < rate
        results = ["win" if one else "loss" for one in won.ravel()]
        one, overall = (
            comparisons.advantage(comparisons.points_of(matches_of(results))),
            winrate.summary(matches_of(results)),
        )
        assert (one["ci_low"] + 0.5, one["ci_high"] + 0.5) == pytest.approx(
            (overall["ci_low"], overall["ci_high"])
        )


# The scripts.

QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["a", "b"]},
    {"question_id": 2, "category": "math", "turns": ["c", "d"]},
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def answers(path, words):
    turns = ["word " * words] * 2
    return write_jsonl(
        path, [{"question_id": one["question_id"], "choices": [{"turns": turns}]} for one in QUESTIONS]
    )


def judged(results, judge="main", models=("dpo-1", "sft")):
    turns = [(1, 1), (1, 2), (2, 1), (2, 2)]
    rows = [match(*turn, result, models=models) for turn, result in zip(turns, results, strict=True)]
    return [row | {"judge": [judge, "pair"]} for row in rows]


def test_several_judges_and_all_pairs(tmp_path):
    write = {name: tmp_path / name for name in ("j1", "j2", "k1", "k2", "pair", "q", "out", "csv")}
    both = ("dpo-1", "rebel-1")
    words = ["--questions", write_jsonl(write["q"].with_suffix(".jsonl"), QUESTIONS), "--policies", *both]
    words += ["--judgments"]
    words += [write_jsonl(tmp_path / "j1.jsonl", judged(["win", "win", "tie", "loss"]))]
    words += [write_jsonl(tmp_path / "j2.jsonl", judged(["loss"] * 4, models=("rebel-1", "sft")))]
    words += ["--other-judges", "other", "--other-judgments"]
    words += [write_jsonl(tmp_path / "k1.jsonl", judged(["win", "tie", "tie", "win"], "other"))]
    words += [write_jsonl(tmp_path / "k2.jsonl", judged(["loss"] * 4, "other", ("rebel-1", "sft")))]
    words += ["--pairs", write_jsonl(tmp_path / "pair.jsonl", judged(["win"] * 4, models=both))]
    words += ["--answers", answers(tmp_path / "a1.jsonl", 3), answers(tmp_path / "a2.jsonl", 3)]
    words += ["--start", "sft", "--start-answers", answers(tmp_path / "a3.jsonl", 5)]
    words += ["--max-lost", "0.2", "--bootstrap-samples", "200", "--seed", "1"]
    words += ["--out", str(tmp_path / "w.json"), "--csv", str(tmp_path / "w.csv")]
    compute_winrate.main(words)
    result = json.loads((tmp_path / "w.json").read_text())
    assert result["judge"] == "main" and list(result["other_judges"]) == ["other"]
    other = result["other_judges"]["other"]
    assert other["win_rates"]["dpo-1"]["overall"]["win_rate_adjusted"] == 0.75
    assert other["agreement"]["matches"] == 8 and other["agreement"]["share"] == 6 / 8
    rates = {name: one["win_rate_adjusted"] for name, one in result["all_pairs"].items()}
    assert rates == {"dpo-1": (2.5 + 4) / 8, "rebel-1": 0, "sft": (1.5 + 4) / 8}
    found = result["win_rates"]["dpo-1"]
    assert found["p_value"] == 1.0 and found["length"]["longer_wins"] == 1 / 3
    rows = list(csv.DictReader((tmp_path / "w.csv").open()))
    assert {(row["judge"], row["slice"]) for row in rows} >= {("other", "turn"), ("main", "all_pairs")}
    (agreed,) = [row for row in rows if row["slice"] == "agreement"]
    assert (agreed["value"], agreed["matches"], agreed["agreement"]) == ("other", "8", "0.75")
    assert {row["consistency"] for row in rows if row["slice"] == "overall"} == {"1.0"}

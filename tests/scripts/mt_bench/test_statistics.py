"""What is told of judgments beside the win rate: by hand, and in simulations whose truth is known."""

import csv
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefline.errors import InputError
from prefline.judging import verbosity, winrate
from prefline.judging.agreement import agreement
from scripts.mt_bench import compute_ratings, compute_winrate

WINNERS = {"win": "model_1", "loss": "model_2", "tie": "tie", "error": "error"}


def match(question_id, turn, result, models=("dpo-1", "sft"), games=None):
    first, second = games or (WINNERS[result], WINNERS[result])
    return {
        "question_id": question_id,
        "turn": turn,
        "model_1": models[0],
        "model_2": models[1],
        "g1_winner": first,
        "g2_winner": second,
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


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """1,000 benchmarks of 80 questions, with ties, whose two turns hang together: the truth is 0.58."""
    random = np.random.default_rng(7)
    covered = 0
    for trial in range(1000):
        strength = random.beta(1.2, 0.8, size=(80, 1))  # mean 0.6: who wins a match that is decided
        tied = random.random((80, 2)) < 0.2
        won = ~tied & (random.random((80, 2)) < strength)
        counts = np.stack([won.sum(1), tied.sum(1), 2 - won.sum(1) - tied.sum(1)], axis=1)
        low, high = winrate.interval(counts, 400, seed=trial)
        covered += low <= 0.58 <= high
    assert 0.93 <= covered / 1000 <= 0.97


def test_the_interval_of_position_bias_by_simulation():
    """A judge that takes the first answer in a fifth of the games, whatever they say."""
    random = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        rows = []
        for number, draw in enumerate(random.random(160)):
            fair = "model_1" if draw < 0.5 else "model_2"
            games = [
                "model_1" if random.random() < 0.2 else fair,
                "model_2" if random.random() < 0.2 else fair,
            ]
            rows.append(match(number // 2, number % 2 + 1, None, games=games))
        low, high = winrate.position_bias_interval(rows, 300, trial)
        # First and second game differ towards the first place if one of them was taken by it: 0.2.
        covered += low <= 0.2 <= high
    assert 0.91 <= covered / 200 <= 0.98
    assert winrate.position_bias_interval([match(1, 1, "error")], 100, 1) == (None, None)


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
    """At the least cross-entropy the residuals sum to 0, and those times the length term to -phi."""
    random = np.random.default_rng(0)
    scores, differences = random.choice([0, 0.5, 1], size=40), random.normal(5, 20, size=40)
    theta, phi = verbosity.fit(scores, differences)
    lengths = np.tanh(differences / differences.std())
    residuals = 1 / (1 + np.exp(-(theta[0] + phi[0] * lengths))) - scores
    assert residuals.sum() == pytest.approx(0, abs=1e-6)
    assert residuals @ lengths == pytest.approx(-phi[0], abs=1e-6)


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
    assert winrate.summary(rows, 100, 1)["win_rate_adjusted"] > 0.64
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
    words += ["--bootstrap-samples", "200", "--seed", "1"]
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


def rating(question_id, turn, score):
    return {"question_id": question_id, "turn": turn, "model": "dpo-1", "score": score}


RATINGS = [rating(1, 1, 8), rating(1, 2, 6), rating(2, 1, -1), rating(2, 2, 2.5)]


@pytest.fixture
def rate(tmp_path):
    def compute(rows):
        words = ["--questions", write_jsonl(tmp_path / "q.jsonl", QUESTIONS), "--policies", "dpo-1"]
        words += ["--judges", "gpt_4", "--ratings", write_jsonl(tmp_path / "r.jsonl", rows)]
        words += ["--bootstrap-samples", "200", "--seed", "1"]
        words += ["--out", str(tmp_path / "r.json"), "--csv", str(tmp_path / "r.csv")]
        compute_ratings.main(words)
        return json.loads((tmp_path / "r.json").read_text())["ratings"]

    return compute


def test_mean_ratings_by_hand(rate):
    found = {(row["slice"], row["value"]): row for row in rate(RATINGS)}
    assert found["overall", "all"]["score"] == 5.5
    assert (found["overall", "all"]["ratings"], found["overall", "all"]["error"]) == (3, 1)
    assert found["turn", "1"]["score"] == 8 and found["category", "math"]["score"] == 2.5
    assert found["overall", "all"]["ci_low"] == 2.5 and found["overall", "all"]["ci_high"] == 7


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (RATINGS[:3], "1 turns are not rated"),
        ([*RATINGS, RATINGS[0]], "line 5: question 1, turn 1 comes twice"),
        ([RATINGS[0] | {"model": "sft"}, *RATINGS[1:]], "line 1: rates sft, not dpo-1"),
        ([row | {"score": -1} for row in RATINGS], "not one answer of dpo-1 has a rating"),
    ],
)
def test_ratings_that_do_not_fit(rate, rows, sentence):
    with pytest.raises(InputError, match=sentence):
        rate(rows)

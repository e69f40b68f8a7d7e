"""Mean ratings: by hand, by simulation, and files that do not fit."""

import json

import numpy as np
import pytest

from prefline.errors import InputError
from prefline.judging import winrate
from scripts.mt_bench import compute_ratings

QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["a", "b"]},
    {"question_id": 2, "category": "math", "turns": ["c", "d"]},
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rating(question_id, turn, score):
    return {"question_id": question_id, "turn": turn, "model": "dpo-1", "score": score}


RATINGS = [rating(1, 1, 8), rating(1, 2, 6), rating(2, 1, -1), rating(2, 2, 2.5)]


@pytest.fixture
def rate(tmp_path):
    def compute(rows):
        words = ["--questions", write_jsonl(tmp_path / "q.jsonl", QUESTIONS), "--policies", "dpo-1"]
        words += ["--judges", "gpt_4", "--ratings", write_jsonl(tmp_path / "r.jsonl", rows)]
        words += ["--out", str(tmp_path / "r.json"), "--csv", str(tmp_path / "r.csv")]
        compute_ratings.main(words)
        return json.loads((tmp_path / "r.json").read_text())["ratings"]

    return compute


def test_mean_ratings_by_hand(rate):
    found = {(row["slice"], row["value"]): row for row in rate(RATINGS)}
    assert found["overall", "all"]["score"] == 5.5
    assert (found["overall", "all"]["ratings"], found["overall", "all"]["error"]) == (3, 1)
    assert found["turn", "1"]["score"] == 8 and found["category", "math"]["score"] == 2.5
    for row in found.values():  # two questions tell little, and one less
        assert 1 <= row["ci_low"] < row["score"] < row["ci_high"] <= 10


def test_equal_ratings_have_an_interval():
    (ten,) = {tuple(compute_ratings.summary([rating(n, 1, 10) for n in range(80)]).values())}
    assert ten[0] == 80 and ten[1] == 10 and 9 < ten[2] < 9.8 and ten[3] == 10
    odd = compute_ratings.summary([rating(1, 1, 42.0), rating(2, 1, 0.0)])  # as FastChat reads
    assert 0 <= odd["ci_low"] < 21 < odd["ci_high"] <= 42


@pytest.mark.parametrize("number", [10, 80])
def test_the_interval_of_a_mean_rating_covers_the_truth(number):
    """Ratings all over the scale, nearly all 10, and nearly all 9 or 10; half of the turns end alike."""
    random = np.random.default_rng(4)
    kinds = [
        ([4, 5, 6, 7, 8, 9], [0.1, 0.1, 0.2, 0.3, 0.2, 0.1]),
        ([1, 10], [0.03, 0.97]),
        ([9, 10], [0.05, 0.95]),
    ]
    for values, shares in kinds:
        covered = 0
        for _ in range(300):
            drawn = random.choice(values, p=shares, size=(number, 2)).astype(float)
            drawn[:, 1] = np.where(random.random(number) < 0.5, drawn[:, 0], drawn[:, 1])
            low, high = winrate.mean_interval(drawn.tolist(), 1, 10)
            covered += low <= np.dot(values, shares) <= high
        assert covered / 300 >= 0.91, values


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


def rated(*scores):
    return [rating(number // 2, number % 2 + 1, score) for number, score in enumerate(scores)]


def test_policies_are_compared_question_by_question():
    """Six equal differences of one point: 2 of the 2^6 changes of signs are as far from 0."""
    found = compute_ratings.compared(
        {"a": rated(*[7, 8.5] * 6), "b": rated(*[6, 7.5] * 6), "c": rated(*[6, -1] * 6)}
    )
    assert [(one["policy"], one["other"], one["ratings"]) for one in found] == [
        ("a", "b", 12), ("a", "c", 6), ("b", "c", 6),
    ]  # fmt: skip
    assert [one["difference"] for one in found] == [1, 1, 0]
    assert [one["p_value"] for one in found] == [2 / 64, 2 / 64, 1]
    assert [one["p_corrected"] for one in found] == [3 * 2 / 64, 3 * 2 / 64, 1]
    assert all(one["ci_low"] < one["difference"] < one["ci_high"] for one in found)
    (nothing,) = compute_ratings.compared({"a": rated(-1, 5), "b": rated(4, -1)})
    assert (nothing["ratings"], nothing["difference"], nothing["p_corrected"]) == (0, None, 1)


def test_six_equal_policies_seldom_differ_after_the_correction():
    random, plain, corrected = np.random.default_rng(6), 0, 0
    for _ in range(40):
        hard = random.integers(3, 8, size=80)
        rows = {
            name: rated(*(hard[:, None] + random.integers(-2, 3, size=(80, 2))).ravel().tolist())
            for name in "abcdef"
        }
        found = compute_ratings.compared(rows)
        plain += min(one["p_value"] for one in found) < 0.05
        corrected += min(one["p_corrected"] for one in found) < 0.05
    assert plain >= 6 and corrected <= 5


def test_the_comparisons_are_in_both_files(tmp_path):
    words = ["--questions", write_jsonl(tmp_path / "q.jsonl", QUESTIONS), "--policies", "dpo-1", "sft"]
    other = [row | {"model": "sft", "score": 3} for row in RATINGS]
    words += ["--judges", "gpt_4", "--ratings", write_jsonl(tmp_path / "r.jsonl", RATINGS)]
    words += [write_jsonl(tmp_path / "s.jsonl", other)]
    compute_ratings.main([*words, "--out", str(tmp_path / "r.json"), "--csv", str(tmp_path / "r.csv")])
    (one,) = json.loads((tmp_path / "r.json").read_text())["comparisons"]
    assert (one["judge"], one["policy"], one["other"], one["difference"]) == ("gpt_4", "dpo-1", "sft", 2.5)
    last = (tmp_path / "r.csv").read_text().splitlines()[-1]
    assert last.startswith("gpt_4,dpo-1,difference,sft,3,")

"""Win rates as FastChat defines them, and intervals that cover what they claim to cover."""

import csv
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefline.errors import InputError
from prefline.judging import winrate
from scripts.mt_bench import compute_winrate

WINNERS = ["model_1", "model_2", "tie", "error"]
SWAPPED = {"model_1": "model_2", "model_2": "model_1", "tie": "tie", "error": "error"}

# What a judge says of a game whose winner, seen from model 1's side, this is.
WORDS = {"model_1": "[[A]]", "model_2": "[[B]]", "tie": "[[C]]"}


def match(question_id, turn, first, second):
    return {
        "question_id": question_id,
        "turn": turn,
        "model_1": "dpo-1",
        "model_2": "sft",
        "g1_winner": first,
        "g2_winner": second,
        "g1_judgment": WORDS.get(first, "?"),
        "g2_judgment": WORDS.get(second, "?"),
        "judge": ["reference", "pair"],
    }


def matches_of(pairs):
    """Two turns for each question, from (g1_winner, g2_winner) pairs."""
    return [match(number // 2, number % 2 + 1, *pair) for number, pair in enumerate(pairs)]


pairs = st.lists(st.tuples(st.sampled_from(WINNERS), st.sampled_from(WINNERS)), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ("model_1", "model_1", "win"),
        ("model_2", "model_2", "loss"),
        ("tie", "tie", "tie"),
        ("model_1", "model_2", "tie"),
        ("model_2", "model_1", "tie"),
        ("model_1", "tie", "tie"),
        ("tie", "model_2", "tie"),
        ("model_1", "error", "error"),
        ("error", "tie", "error"),
    ],
)
def test_a_match_is_won_only_in_both_orders_and_dropped_with_an_error(first, second, outcome):
    assert winrate.outcome(match(1, 1, first, second)) == outcome


def test_the_published_arithmetic():
    """0.5875 is 94 of 160: by 61 wins, 66 ties and 33 losses, for one."""
    assert winrate.adjusted(61, 66, 33) == 0.5875
    games = ["model_1"] * 61 + ["tie"] * 66 + ["model_2"] * 33
    found = winrate.summary(matches_of([(game, game) for game in games]))
    assert (found["win"], found["tie"], found["loss"], found["error"]) == (61, 66, 33, 0)
    assert found["matches"] == 160
    assert found["win_rate"] == 61 / 160
    assert found["loss_rate"] == 33 / 160
    assert found["win_rate_adjusted"] == 0.5875
    assert found["ci_low"] < 0.5875 < found["ci_high"]


def test_an_error_takes_its_match_out_of_the_rate():
    games = [("model_1", "model_1"), ("model_1", "error"), ("model_2", "model_2"), ("tie", "model_1")]
    found = winrate.summary(matches_of(games))
    assert (found["win"], found["tie"], found["loss"], found["error"], found["matches"]) == (1, 1, 1, 1, 3)
    assert found["win_rate_adjusted"] == 0.5


def test_without_a_valid_match_there_is_no_rate():
    found = winrate.summary(matches_of([("error", "tie")]))
    assert found["matches"] == 0
    assert found["win_rate_adjusted"] is None
    assert found["ci_low"] is None


@given(pairs)
def test_swapping_the_models_turns_a_rate_into_its_complement(pairs):
    one = winrate.summary(matches_of(pairs))
    other = winrate.summary(matches_of([(SWAPPED[a], SWAPPED[b]) for a, b in pairs]))
    assert (one["win"], one["tie"], one["error"]) == (other["loss"], other["tie"], other["error"])
    if one["matches"]:
        assert one["win_rate_adjusted"] == pytest.approx(1 - other["win_rate_adjusted"])
        assert one["ci_low"] == pytest.approx(1 - other["ci_high"])
        assert one["ci_high"] == pytest.approx(1 - other["ci_low"])


@given(pairs)
def test_rates_and_intervals_lie_between_nought_and_one(pairs):
    found = winrate.summary(matches_of(pairs))
    if found["matches"]:
        assert 0 <= found["ci_low"] <= found["ci_high"] <= 1
        assert 0 <= found["win_rate"] <= found["win_rate_adjusted"] <= 1 - found["loss_rate"] <= 1


@given(pairs)
def test_position_bias_adds_up(pairs):
    found = winrate.position_bias(matches_of(pairs))
    if found["consistency"] is not None:
        assert sum(found.values()) == pytest.approx(1)


def test_position_bias_by_hand():
    games = [
        ("model_1", "model_1"),  # consistent
        ("tie", "tie"),  # consistent
        ("model_1", "model_2"),  # the answer shown first wins both
        ("tie", "model_2"),  # the first wins one, the other is a tie
        ("model_2", "model_1"),  # the answer shown second wins both
        ("error", "model_1"),  # does not count
    ]
    assert winrate.position_bias(matches_of(games)) == {
        "consistency": 2 / 5,
        "biased_toward_first": 2 / 5,
        "biased_toward_second": 1 / 5,
    }


def test_the_interval_draws_whole_questions():
    """Equal turns are half the information: the interval is wider by the square root of two."""
    random = np.random.default_rng(0)
    wins = random.random(2000) < 0.5
    alike = winrate.interval([(2, 0, 0) if win else (0, 0, 2) for win in wins[:1000]])
    apart = winrate.interval([(1, 0, 0) if win else (0, 0, 1) for win in wins])
    assert (alike[1] - alike[0]) / (apart[1] - apart[0]) == pytest.approx(2**0.5, rel=0.06)


def test_the_interval_is_wilsons_where_questions_have_one_match():
    """Of 10 independent matches, 8 won: by the formula with Student's quantile and the sample variance."""
    low, high = winrate.interval([(1, 0, 0)] * 8 + [(0, 0, 1)] * 2)
    t, n, p = winrate.student(9), 10 * 0.9, 0.8
    middle, half = p + t * t / (2 * n), t * math.sqrt(p * (1 - p) / n + t * t / (4 * n * n))
    assert (low, high) == pytest.approx([(middle + sign * half) / (1 + t * t / n) for sign in (-1, 1)])
    assert winrate.interval([(2, 0, 0)] * 10)[0] < 0.75 and winrate.interval([(2, 0, 0)] * 10)[1] == 1


@pytest.mark.parametrize("freedom", [1, 1.2, 1.618, 1.9, 2, 2.5, 2.99, 3, 3.7, 5, 19, 159, 1e6])
def test_students_quantile(freedom):
    import scipy.stats

    assert winrate.student(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=2e-3)


QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["a", "b"]},
    {"question_id": 2, "category": "math", "turns": ["c", "d"]},
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def answers(path, model, words):
    rows = [
        {
            "question_id": question["question_id"],
            "answer_id": "x",
            "model_id": model,
            "choices": [{"index": 0, "turns": ["word " * words, "word " * words]}],
        }
        for question in QUESTIONS
    ]
    return write_jsonl(path, rows)


@pytest.fixture
def run(tmp_path):
    """compute_winrate on the judgments of one policy; gives its JSON and CSV."""

    def compute(judgments, max_lost=0.5):
        arguments = {
            "questions": write_jsonl(tmp_path / "question.jsonl", QUESTIONS),
            "policies": "dpo-1",
            "judgments": write_jsonl(tmp_path / "dpo-1.jsonl", judgments),
            "answers": answers(tmp_path / "a1.jsonl", "dpo-1", 3),
            "start": "sft",
            "start-answers": answers(tmp_path / "a2.jsonl", "sft", 5),
            "max-lost": str(max_lost),
            "bootstrap-samples": "200",
            "seed": "1",
            "out": str(tmp_path / "winrate.json"),
            "csv": str(tmp_path / "winrate.csv"),
        }
        words = [word for key, value in arguments.items() for word in (f"--{key}", value)]
        compute_winrate.main([*words, "--other-judges", "--other-judgments", "--pairs"])
        return json.loads((tmp_path / "winrate.json").read_text()), (tmp_path / "winrate.csv").read_text()

    return compute


FOUR = [
    match(1, 1, "model_1", "model_1"),
    match(1, 2, "tie", "tie"),
    match(2, 1, "model_2", "model_2"),
    match(2, 2, "model_1", "error"),
]


def test_too_many_lost_matches_give_no_rate(run):
    with pytest.raises(
        InputError, match=r"judge reference gave no verdict in 1 of 4 matches of dpo-1, more .*0.2"
    ):
        run(FOUR, max_lost=0.2)
    with pytest.raises(InputError, match=r"in 1 of 2 matches of dpo-1 in the category math, more .*0.3"):
        run(FOUR, max_lost=0.3)


def test_games_that_fastchat_reads_otherwise_are_counted(run):
    rows = [FOUR[0] | {"g1_judgment": "Not [[A]]: it is wrong. [[B]]", "g2_judgment": "[[b]]"}, *FOUR[1:]]
    assert run(FOUR)[0]["win_rates"]["dpo-1"]["read_otherwise_by_fastchat"] == 0
    assert run(rows)[0]["win_rates"]["dpo-1"]["read_otherwise_by_fastchat"] == 2


def test_compute_winrate_by_hand(run):
    result, text = run(FOUR)
    found = result["win_rates"]["dpo-1"]
    assert found["overall"]["win_rate_adjusted"] == 0.5
    assert found["category"]["writing"]["win_rate_adjusted"] == 0.75
    assert found["category"]["math"]["win_rate_adjusted"] == 0
    assert found["turn"]["1"]["win_rate_adjusted"] == 0.5
    assert found["turn"]["2"] | {"ci_low": 0, "ci_high": 0} == {
        "win": 0, "tie": 1, "loss": 0, "error": 1, "matches": 1,
        "win_rate": 0.0, "loss_rate": 0.0, "win_rate_adjusted": 0.5, "ci_low": 0, "ci_high": 0,
    }  # fmt: skip
    assert found["mean_words"] == {"policy": 3, "start": 5}
    assert result["categories"] == ["writing", "math"]
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["slice"], row["value"]) for row in rows] == [
        ("overall", "all"), ("category", "writing"), ("category", "math"), ("turn", "1"), ("turn", "2"),
        ("advantage_by_games", "sft"),
    ]  # fmt: skip
    assert float(rows[1]["win_rate_adjusted"]) == 0.75


def test_the_order_of_the_judgments_changes_nothing(run):
    assert run(FOUR) == run(FOUR[::-1])


@pytest.mark.parametrize(
    ("judgments", "message"),
    [
        (FOUR[:3], "1 turns are not judged, such as question 2, turn 2"),
        ([*FOUR, FOUR[0]], "line 5: question 1, turn 1 is judged twice"),
        ([*FOUR, match(9, 1, "tie", "tie")], "question 9, turn 1 is not among the questions"),
        ([{**FOUR[0], "model_1": "rebel-1"}, *FOUR[1:]], "line 1: judges rebel-1 against sft, not dpo-1"),
        ([{**FOUR[0], "g1_winner": "A"}, *FOUR[1:]], "line 1: `g1_winner` is one of"),
        ([{**FOUR[0], "judge": ["other", "pair"]}, *FOUR[1:]], "line 2: another judge"),
        ([], "4 turns are not judged"),
    ],
)
def test_judgments_that_do_not_fit_the_questions(run, judgments, message):
    with pytest.raises(InputError, match=message):
        run(judgments)

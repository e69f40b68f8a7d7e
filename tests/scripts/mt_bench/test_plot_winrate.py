"""The picture: nothing overlaps, nothing leaves the paper, equal numbers give equal bytes."""

import hashlib
import itertools
import random

import matplotlib
import pytest
import texts_in_pictures
from matplotlib.lines import Line2D
from matplotlib.text import Text

from prefline import files
from prefline.judging import comparisons, winrate
from scripts.mt_bench import compute_winrate, plot_winrate

CATEGORIES = ["writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"]
NAMES = [
    "dpo-1",
    "dpo-2",
    "rebel-1",
    "rebel-2",
    "a_run_with_quite_a_long_name-12",
    "ipo-1",
    "x-1",
    "y-1",
    "z-1",
    "w-1",
]


def result(policies, categories=CATEGORIES, winners=("model_1", "tie", "model_2"), others=()):
    """What compute_winrate writes, from random matches."""
    questions = [
        {"question_id": number, "category": categories[number * len(categories) // 80], "turns": ["", ""]}
        for number in range(80)
    ]
    win_rates, rows = {}, {}
    for number, policy in enumerate(policies):
        draw = random.Random(number)
        matches = []
        for question, turn in itertools.product(questions, (1, 2)):
            winner = draw.choice(winners)
            games = {"g1_winner": winner, "g2_winner": winner}
            matches.append({"question_id": question["question_id"], "turn": turn, **games})
        rows[policy] = matches
        bias = winrate.position_bias(matches)
        win_rates[policy] = compute_winrate.rates(matches, questions) | {"position_bias": bias}
    return {
        "judge": "reference", "start": "sft", "policies": policies, "categories": categories,
        "questions": len(questions), "win_rates": win_rates, "confidence": 0.95,
        "comparisons": comparisons.compare(policies, "sft", rows),
        "repeated": compute_winrate.over_seeds(rows, questions),
        "other_judges": {
            name: {"win_rates": result(policies[::-1], categories, winners)["win_rates"],
                   "repeated": compute_winrate.over_seeds(rows, questions),
                   "agreement": {"matches": 160, "share": 0.81, "kappa": 0.6, "opposite": 0.01}}
            for name in others
        },
    }  # fmt: skip


GRID = [
    f"dpo_beta_{beta}_eta_{eta}_learning_rate_{rate}-1"
    for beta in ("0p05", "0p5")
    for eta in ("0p1", "0p2")
    for rate in ("0p0001", "0p001")
]


def compared(policies, *names):
    """A result of tools.compare, with the names of the rows' experiments."""
    return result(policies) | {"experiments": dict(zip(policies, names, strict=True)), "differences": []}


CASES = {
    "one": result(NAMES[:1]),
    "three": result(NAMES[:3]),
    "ten": result(NAMES),
    "always better": result(NAMES[:2], winners=("model_1",)),
    "always worse": result(NAMES[:2], winners=("model_2",)),
    "errors": result(NAMES[:2], winners=("error",)),
    "three categories": result(NAMES[:2], categories=["writing", "a longer category", "mathematics"]),
    "five runs, two judges": result(
        ["dpo-1", "rebel-2", "ipo-1", "simpo-1", "a_run_with_quite_a_long_name-12"], others=["gpt_4"]
    ),
    "ten, three judges": result(NAMES, others=["gpt_4", "a_judge_with_quite_a_long_name"]),
    "five runs, two judges, lost matches": result(
        ["dpo-1", "rebel-2", "ipo-1", "simpo-1", "a_run_with_quite_a_long_name-12"],
        winners=("model_1", "model_1", "tie", "model_2", "error"),
        others=["gpt_4", "a_judge_with_quite_a_long_name"],
    ),
    "fourteen": result([f"run{number}_with_quite_a_long_name-{number}" for number in range(14)]),
    "one category": result(NAMES[:3], categories=["everything"]),
    "seeds, two judges": result(
        ["dpo-s1-1", "dpo-s2-1", "dpo-s3-1", "a_run_with_quite_a_long_name-1", "rebel-s4-1", "rebel-s4-2"],
        others=["gpt_4"],
    ),
    "a grid of three keys": result(GRID),
    "experiments": compared(["dpo-1", "dpo_hot-1"], "cold", "hot, warm"),
    "experiments with long names": compared(
        ["dpo_with_a_rather_long_name_of_one-1", "dpo_with_a_rather_long_name_of_another-1"],
        "experiment_with_a_long_name, experiment_with_another",
        "experiment_with_a_third_name_that_is_long",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_no_text_overlaps_another_or_leaves_the_paper(case):
    assert texts_in_pictures.check(plot_winrate.draw(CASES[case])) > 10


def test_no_two_rows_have_one_name():
    figure = plot_winrate.draw(CASES["a grid of three keys"])
    rows = [label.get_text().replace("\n", "") for label in figure.axes[0].get_yticklabels()]
    assert sorted(rows) == sorted(GRID)


def test_every_policy_and_category_is_named():
    figure = plot_winrate.draw(CASES["three"])
    texts = {text.get_text() for text in figure.findobj(Text)}
    assert {*NAMES[:3], *CATEGORIES} <= texts


def test_the_notes_tell_what_is_lost_and_how_far_positions_decide():
    figure = plot_winrate.draw(CASES["five runs, two judges, lost matches"])
    texts = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "Matches that count: " in texts and "Both orders of the answers have the same verdict" in texts
    many = {text.get_text() for text in plot_winrate.draw(CASES["fourteen"]).findobj(Text)}
    assert {*plot_winrate.TOO_MANY} <= many


def test_the_marks_of_two_other_judges_are_apart():
    """Both give the same rates."""
    figure = plot_winrate.draw(CASES["five runs, two judges, lost matches"])
    hollow = [
        tuple(line.get_xydata()[0])
        for line in figure.findobj(Line2D)
        if line.get_markerfacecolor() == "white" and len(line.get_xydata()) == 1
    ]
    assert len(hollow) == len(set(hollow)) == 10


def test_a_run_with_seeds_is_one_row_with_a_mark_for_each():
    figure = plot_winrate.draw(CASES["seeds, two judges"])
    texts = {text.get_text() for text in figure.findobj(Text)}
    assert "dpo-1, 3 seeds" in texts and not {"dpo-s1-1", "dpo-s2-1", "dpo-s3-1"} & texts
    marks = sorted(line.get_xdata()[0] for line in figure.findobj(Line2D) if line.get_marker() == "|")
    told = CASES["seeds, two judges"]["win_rates"]
    assert marks == sorted(told[f"dpo-s{seed}-1"]["overall"]["win_rate_adjusted"] for seed in (1, 2, 3))


def test_equal_numbers_give_equal_bytes(tmp_path):
    files.write_json(tmp_path / "winrate.json", CASES["three"])
    digests = []
    for name in ("a.png", "b.png"):
        plot_winrate.main(["--winrate", str(tmp_path / "winrate.json"), "--out", str(tmp_path / name)])
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    assert matplotlib.__version__.encode() not in (tmp_path / "a.png").read_bytes()


def test_drawing_leaves_the_callers_style_alone():
    before = dict(matplotlib.rcParams)
    plot_winrate.draw(CASES["one"])
    after = dict(matplotlib.rcParams)
    assert {key for key in before if before[key] != after[key]} <= {"backend", "backend_fallback"}


def test_a_run_has_one_colour():
    colours = plot_winrate.colours(["dpo-1", "rebel-1", "dpo-2", "rebel-2"])
    assert colours[0] == colours[2] != colours[1] == colours[3]

"""Reward models on data in RewardBench 2's form: scores as in ranking, and the published arithmetic."""

import copy
import json
import math

import pytest
from comparing_models import save_language_model
from configs import DEFAULT
from small_model import CHATML, make_model, make_tokenizer

from prefline import files
from prefline.config import loading as configuration
from prefline.errors import InputError
from prefline.rewards import Dialogue, reward_bench, scorers
from scripts.benchmarks import evaluate_reward

ROWS = [
    {"id": "1", "subset": "Math", "prompt": "1 + 1?", "chosen": ["2"], "rejected": ["3", "11", "no"]},
    {"id": "2", "subset": "Math", "prompt": "2 + 1?", "chosen": ["3"], "rejected": ["4", "21", "no"]},
    {"id": "3", "subset": "Focus", "prompt": "Which bird?", "chosen": ["A jay."], "rejected": ["A", "B"]},
    {"id": "ref:1", "subset": "Ties", "prompt": "Name two?", "chosen": ["two"], "rejected": ["one"]},
    {"id": "tied:1", "subset": "Ties", "prompt": "A colour?", "chosen": ["red", "blue"], "rejected": ["one"]},
]


def of_ties(name, right, wrong):
    return {"id": name, "subset": "Ties", "chosen": right, "rejected": wrong}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    tokenizer = make_tokenizer(CHATML, bos_token=None)
    shape = {"num_labels": 1, "pad_token_id": tokenizer.pad_token_id, "num_key_value_heads": 1}
    return make_model(tmp_path_factory.mktemp("rm"), tokenizer, "LlamaForSequenceClassification", **shape)


def evaluate(tmp_path, model, rows=ROWS, **changed):
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "data": tmp_path / "data.jsonl",
        "benchmark": "rb",
        "reward": "reward_model",
        "model": model,
        "kind": "classifier",
        "head-weights": "null",
        "opponents": 0,
        "dtype": "float32",
        "batch-tokens": 500,
        "seed": 1,
        "journal": tmp_path / "journal",
        "scores": tmp_path / "scores.jsonl",
        "out": tmp_path / "out.json",
    } | changed
    evaluate_reward.main([f"--{name}={value}" for name, value in values.items()])
    scores = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    return files.read_json(tmp_path / "out.json"), scores


def test_scores_are_those_of_ranking_and_are_not_made_twice(tmp_path, classifier, capsys):
    result, scores = evaluate(tmp_path, classifier)
    scorer = scorers.load(classifier, 500, "float32")
    for row, found in zip(ROWS, scores, strict=True):
        question = [{"role": "user", "content": row["prompt"]}]
        for key in ("chosen", "rejected"):
            wanted = scorers.score(scorer, [Dialogue(question, answer, "") for answer in row[key]])
            assert found[key] == pytest.approx(wanted.tolist(), abs=1e-4)
    assert [one["metric"] for one in result["metrics"]] == [
        *("Math/accuracy", "Focus/accuracy", "Ties/score", "average")
    ]
    math_, focus, ties, average = [one["value"] for one in result["metrics"]]
    assert math_ == sum(found["result"] for found in scores[:2]) / 2
    assert average == pytest.approx((math_ + focus + ties) / 3)
    assert [one["n"] for one in result["metrics"]] == [2, 1, 2, 5]
    assert result["policy"] == "reward_model"
    capsys.readouterr()
    assert evaluate(tmp_path, classifier) == (result, scores)
    assert "16 of 16 rows are in the journal" in capsys.readouterr().out


def test_a_model_that_compares_holds_the_tournament_of_ranking(tmp_path):
    model = save_language_model(tmp_path / "llama")
    result, scores = evaluate(tmp_path, model, kind="pairwise")
    for found in scores:
        # A full tournament's rewards have the mean 1/2, with each answer's half against itself.
        every = found["chosen"] + found["rejected"]
        assert sum(every) / len(every) == pytest.approx(0.5)
        assert len(set(every)) > 1
    assert result["metrics"][0]["settings"] == {"kind": "pairwise", "dtype": "float32", "opponents": 0}


def test_equal_highest_scores_share_the_point():
    questions = [{"id": str(n), "subset": "Math", "chosen": ["c"], "rejected": ["r"] * 3} for n in range(4)]
    scores = [3, 1, 2, 0, *(1, 1, 0, 1), *(0, 1, 0, 0), *(2, 2, 2, 2)]
    found = reward_bench.scored(questions, scores)
    assert [one["result"] for one in found] == pytest.approx([1, 1 / 3, 0, 1 / 4])


@pytest.mark.parametrize(
    ("questions", "wanted"),
    [
        # Gaps 2 and 3, spread 1: everything holds; tanh(2 / 1 - 1) beside it.
        (
            [of_ties("ref:1", [2.0], [0.0]), of_ties("tied:1", [4.0, 3.0], [0.0])],
            0.3 + 0.3 + 0.2 + 0.2 + 0.01 * math.tanh(1),
        ),
        # The ref question's gap of 1 is below the spread of 2: c holds, d does not.
        (
            [of_ties("ref:1", [1.0], [0.0]), of_ties("tied:1", [5.0, 3.0], [0.0, -1.0])],
            0.3 + 0.3 + 0.2 + 0.01 * math.tanh(1 / 2 - 1),
        ),
        # One of two right answers is below a wrong one.
        (
            [of_ties("ref:1", [1.0], [0.0]), of_ties("tied:1", [5.0, -1.0], [0.0])],
            0.3 + 0.01 * math.tanh(-1 / 6 - 1),
        ),
        # No spread: no ratio. A gap of 0 is no gap.
        ([of_ties("ref:1", [1.0], [1.0]), of_ties("tied:1", [2.0, 2.0], [0.0])], 0.3 + 0.2),
        # Without a counterpart only the shares count.
        ([of_ties("tied:1", [3.0, 2.0], [0.0])], 0.3),
    ],
)
def test_the_score_of_ties_worked_by_hand(questions, wanted):
    assert reward_bench.ties_score(questions) == pytest.approx(wanted)


WRONG = {
    "no file": (None, r"gone\.jsonl: no such file; .*reward-bench-2"),
    "no subset": ({"subset": None}, "line 1: has no name of a subset as 'subset'"),
    "chosen is text": ({"chosen": "2"}, "line 1: 'chosen' is a list of answers"),
    "nothing rejected": ({"rejected": []}, "line 1: 'rejected' is a list of answers"),
    "an answer is a number": ({"rejected": [3]}, "line 1: 'rejected' is a list of answers"),
    "no prompt": ({"prompt": " "}, "line 1: the user message has no text"),
    "a number as prompt": ({"prompt": 3}, "line 1: a prompt is a string or a list"),
    "several chosen": ({"chosen": ["2", "two"]}, "line 1: has 2 chosen answers; only the subset Ties"),
    "ties without pairs": ({"subset": "Ties"}, "line 1: the id '1' of a question in the subset Ties is not"),
    "an id twice": ({"id": "2"}, "line 2: the id '2' comes twice in the subset Math"),
    "too long": ({"chosen": ["2" * 200]}, r"line 1 \(id 1\): has \d+ tokens, .* remove the row of"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_data_is_one_sentence_that_names_the_row(tmp_path, classifier, case):
    change, message = WRONG[case]
    more = {"data": tmp_path / "gone.jsonl"} if change is None else {}
    with pytest.raises(InputError, match=message) as error:
        evaluate(tmp_path, classifier, [ROWS[0] | (change or {}), *ROWS[1:]], **more)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.json").exists()


def test_without_a_reward_model_there_is_nothing_to_evaluate():
    config = copy.deepcopy(DEFAULT) | {"benchmarks": {"rb": {"kind": "reward_bench", "data": "rb.jsonl"}}}
    configuration.load(config)
    function = {"kind": "function", "function": "prefline/rewards/functions.py:length", "arguments": {}}
    config["rewards"] = {"short": function | {"weight": 1.0, "normalize": "none"}}
    with pytest.raises(InputError, match=r"config: benchmarks\.rb: no entry of `rewards` is a model"):
        configuration.load(config)

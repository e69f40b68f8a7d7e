"""The script that judges MT-Bench's answers: FastChat's form of verdicts, clear errors."""

import json
from types import SimpleNamespace

import pytest
from judging_mt_bench import write_jsonl

from prefline.errors import InputError
from scripts.mt_bench import judge_mt_bench

QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["Name a beast.", "And another."]},
    {"question_id": 2, "category": "math", "turns": ["How much is 2 plus 2?", "Add 3 to that."]},
]


def answer_row(question_id, *turns, model="m"):
    return {
        "question_id": question_id,
        "answer_id": "x",
        "model_id": model,
        "choices": [{"index": 0, "turns": turns}],
    }


@pytest.fixture
def judge(tmp_path):
    """judge_mt_bench with the reference judge on given rows; gives its rows."""

    def run(answers_1, answers_2, references):
        arguments = {
            "questions": write_jsonl(tmp_path / "question.jsonl", QUESTIONS),
            "answers-1": write_jsonl(tmp_path / "dpo-1.jsonl", answers_1),
            "model-1": "dpo-1",
            "answers-2": write_jsonl(tmp_path / "sft.jsonl", answers_2),
            "model-2": "sft",
            "judge": "reference",
            "references": write_jsonl(tmp_path / "reference.jsonl", references),
            "journal": str(tmp_path / "journal"),
            "batch-tokens": "128",
            "out": str(tmp_path / "judgments.jsonl"),
        }
        judge_mt_bench.main([word for key, value in arguments.items() for word in (f"--{key}", str(value))])
        return [json.loads(line) for line in (tmp_path / "judgments.jsonl").read_text().splitlines()]

    return run


REFERENCES = [answer_row(1, "fox", "cat"), answer_row(2, "2 and 2 make 4.", "4 and 3 make 7.")]
GOOD = [answer_row(1, "fox", "cat"), answer_row(2, "4", "7")]
MIXED = [answer_row(1, "fox", "dog"), answer_row(2, "5", "7")]


def test_judgments_are_in_fastchats_pair_form(judge):
    rows = judge(GOOD, MIXED, REFERENCES)
    assert [(row["question_id"], row["turn"]) for row in rows] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [row["g1_winner"] for row in rows] == ["tie", "model_1", "model_1", "tie"]
    assert [row["g2_winner"] for row in rows] == ["tie", "model_1", "model_1", "tie"]
    assert [row["judge"] for row in rows] == [["reference", "pair"], ["reference", "pair-multi-turn"]] * 2
    second = rows[1]
    assert list(second) == [
        "question_id", "model_1", "model_2", "g1_winner", "g2_winner", "judge",
        "g1_user_prompt", "g1_judgment", "g2_user_prompt", "g2_judgment", "turn",
    ]  # fmt: skip
    assert (second["model_1"], second["model_2"]) == ("dpo-1", "sft")
    assert second["g1_judgment"].endswith("[[A]]") and second["g2_judgment"].endswith("[[B]]")
    assert second["g1_user_prompt"].index("### Assistant A\ncat") < second["g1_user_prompt"].index("dog")
    assert second["g2_user_prompt"].index("### Assistant A\ndog") < second["g2_user_prompt"].rindex("cat")


def test_swapping_the_models_swaps_the_winners(judge):
    forth, back = judge(GOOD, MIXED, REFERENCES), judge(MIXED, GOOD, REFERENCES)
    swapped = {"model_1": "model_2", "model_2": "model_1", "tie": "tie"}
    assert [swapped[row["g1_winner"]] for row in forth] == [row["g1_winner"] for row in back]


def test_no_judging_by_references_that_are_not_there(judge):
    with pytest.raises(
        InputError, match="question 2, turn 1: the judge `reference` needs a reference answer"
    ):
        judge(GOOD, MIXED, REFERENCES[:1])
    with pytest.raises(
        InputError, match="question 2, turn 2: the judge `reference` needs a reference answer"
    ):
        judge(GOOD, MIXED, [REFERENCES[0], answer_row(2, "4")])


def test_a_verdict_that_is_missing_is_an_error():
    game = SimpleNamespace(question_id=1, turn=1)
    row = judge_mt_bench.match_row("gpt", "a", "b", (game, game), [("", "[[A]]"), ("", "$ERROR$")])
    assert (row["g1_winner"], row["g2_winner"]) == ("model_1", "error")


def test_a_judge_says_which_flags_it_lacks(tmp_path, capsys):
    needed = (
        "--questions q --answers-1 a --model-1 a --answers-2 b --model-2 b --judge reward --model m "
        "--batch-tokens 128 --journal j --out o"
    )
    with pytest.raises(SystemExit):
        judge_mt_bench.main(needed.split())
    assert "the judge reward needs --dtype" in capsys.readouterr().err

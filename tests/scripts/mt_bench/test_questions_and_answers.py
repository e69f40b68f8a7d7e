"""Files of questions and answers in FastChat's form: what is read back, and what is refused by line."""

import pytest
from judging_mt_bench import write_jsonl

from prefline.errors import InputError
from prefline.judging import fastchat

QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["Name a beast.", "And another."]},
    {"question_id": 2, "category": "math", "turns": ["How much is 2 plus 2?", "Add 3 to that."]},
    {"question_id": 3, "category": "writing", "turns": ["Name a fruit."]},
]


def answer_row(question_id, *turns):
    return {"question_id": question_id, "choices": [{"turns": turns}]}


GOOD = [answer_row(1, "fox", "cat"), answer_row(2, "4", "7")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"question_id": 1, "category": "a", "turns": ["x"]'], r"line 1: not valid JSON"),
        (['{"question_id": 1, "category": "a"}'], "line 1: no column 'turns'"),
        (['{"question_id": 1, "category": "a", "turns": "x"}'], "line 1: `turns` is a list of strings"),
        (['{"question_id": 1, "category": "a", "turns": []}'], "line 1: `turns` is a list of strings"),
        (['{"question_id": 1, "category": 2, "turns": ["x"]}'], "line 1: `category` is a string"),
        (['{"question_id": null, "category": "a", "turns": ["x"]}'], "line 1: `question_id` is a number"),
        (['{"question_id": 1, "category": "a", "turns": ["x"]}'] * 2, "line 2: question 1 comes twice"),
        ([], "holds no question"),
    ],
)
def test_bad_questions(tmp_path, lines, message):
    path = tmp_path / "question.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=message) as error:
        fastchat.read_questions(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (GOOD[:1], "no answer to question 2"),
        ([GOOD[0], answer_row(2, "4")], "question 2 has 2 turns, but 1 answered"),
        ([*GOOD, GOOD[0]], "line 3: question 1 comes twice"),
        ([{"question_id": 1, "choices": []}], "line 1: `choices` is a list of objects"),
        ([{"question_id": 1, "choices": [{"turns": [None]}]}], "line 1: `turns` is a list of strings"),
    ],
)
def test_bad_answers(tmp_path, rows, message):
    path = tmp_path / "answers.jsonl"
    write_jsonl(path, rows)
    with pytest.raises(InputError, match=message) as error:
        fastchat.read_answers(path, QUESTIONS[:2])
    assert str(path) in str(error.value)


def test_answers_read_back_as_written(tmp_path):
    answers = {1: ["fox\n- cat", "ß “”"], 2: ["", "7"], 3: ["plum"]}
    fastchat.write_answers(tmp_path / "a.jsonl", "sft", QUESTIONS, answers)
    assert fastchat.read_answers(tmp_path / "a.jsonl", QUESTIONS) == answers


def test_the_embedded_questions_can_be_judged_by_their_references():
    questions = fastchat.read_questions("data/mt_bench/question.jsonl")
    references = fastchat.read_references("data/mt_bench/reference_answer/reference.jsonl")
    assert len(questions) == 80
    assert all(
        len(references[question["question_id"]]) == len(question["turns"]) == 2 for question in questions
    )

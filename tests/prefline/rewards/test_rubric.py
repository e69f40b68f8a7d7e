"""A judge with a rubric: what it is asked, and what counts as its verdict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefline.errors import InputError
from prefline.rewards import Dialogue, rubric

RUBRIC = "Asked:\n{prompt}\n\nRight:\n{reference}\n\nSaid:\n<{completion}>\n\nEnd with [[number]]."
QUESTION = [{"role": "user", "content": "How many legs has a cat?"}]


def load(tmp_path, text):
    (tmp_path / "rubric.txt").write_text(text, encoding="utf-8")
    return rubric.load(tmp_path / "rubric.txt")


def test_all_that_is_known_is_put_in(tmp_path):
    asked = rubric.fill(load(tmp_path, RUBRIC), Dialogue(QUESTION, "Four.", "", "4"))
    assert asked == "Asked:\nHow many legs has a cat?\n\nRight:\n4\n\nSaid:\n<Four.>\n\nEnd with [[number]]."


@pytest.mark.parametrize("reference", [None, ""])
def test_the_paragraph_of_a_reference_that_is_none_is_left_out(tmp_path, reference):
    asked = rubric.fill(load(tmp_path, RUBRIC), Dialogue(QUESTION, "Four.", "", reference))
    assert asked == "Asked:\nHow many legs has a cat?\n\nSaid:\n<Four.>\n\nEnd with [[number]]."


texts = st.text() | st.sampled_from(["{prompt}", "{completion} {reference}", "{0}", "}{", r"\1 \g<prompt>"])


@given(prompt=texts, completion=texts, reference=texts.filter(bool))
def test_what_is_put_in_comes_out_as_it_was(prompt, completion, reference):
    dialogue = Dialogue([{"role": "user", "content": prompt}], completion, "", reference)
    asked = rubric.fill(["A {prompt}", "B {reference}", "C {completion}"], dialogue)
    assert asked == f"A {prompt}\n\nB {reference}\n\nC {completion}"


def test_of_several_turns_each_says_who_speaks():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Go on.\n\nPlease."},
    ]
    assert rubric.transcript(messages) == (
        "System: Be brief.\n\nUser: Hello!\n\nAssistant: Yes?\n\nUser: Go on.\n\nPlease."
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Rate {completion}", r"rubric.txt: the rubric has no {prompt}; write it where the prompt belongs"),
        ("Rate {prompt}", r"rubric.txt: the rubric has no {completion}"),
        ("{prompt}\n{completion}\n{answer}", r"rubric.txt, line 3: a rubric has no braces but those of"),
        ('{prompt} {completion} {"score": 1}', r"rubric.txt, line 1: a rubric has no braces"),
        ("{prompt}\n{completion}\n{{prompt}}", r"rubric.txt, line 3: a rubric has no braces"),
        ("{prompt}\n\n{completion}\n{reference}", r"rubric.txt: put {reference} into a separate paragraph"),
    ],
)
def test_a_rubric_that_is_none_is_one_sentence(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence):
        load(tmp_path, text)


def test_a_rubric_in_another_encoding_is_one_sentence(tmp_path):
    (tmp_path / "rubric.txt").write_bytes("{prompt} {completion} größer".encode("latin-1"))
    with pytest.raises(InputError, match=r"rubric.txt: a rubric is a text file in UTF-8"):
        rubric.load(tmp_path / "rubric.txt")


def test_the_rubric_that_ships_is_one():
    paragraphs = rubric.load("data/rubric.txt")
    asked = rubric.fill(paragraphs, Dialogue(QUESTION, "Four.", "", None))
    assert "legs" in asked and "Four." in asked and "CORRECT ANSWER =" not in asked
    assert asked.endswith("[[number]]")

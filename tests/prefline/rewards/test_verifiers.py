"""Rewards that can be verified: right, wrong, equivalent and hostile forms of answers."""

import json
import time

import pytest
from answer_forms import CHOICE, CONSTRAINTS, FORMAT, JSON, MATH

from prefline.errors import InputError
from prefline.rewards import NoReward, verifiers


def forms(table):
    return [
        (reference, text, wanted)
        for reference, sides in table.items()
        for texts, wanted in zip(sides, (1.0, 0.0), strict=True)
        for text in texts
    ]


def wrong(verify, table):
    """The forms whose reward is not the wanted one."""
    return [
        (reference, text, wanted)
        for reference, text, wanted in forms(table)
        if verify([], text, reference) != wanted
    ]


def test_forms_of_mathematical_answers():
    pytest.importorskip("math_verify")
    assert not wrong(verifiers.math, MATH)


@pytest.mark.parametrize(
    "reference",
    [
        "(4, 5)",
        "3x+2",
        r"3\sqrt{13}",
        r"\frac{3}{4}",
        r"\text{(A)}",
        "[2, 5)",
        "x^2-2x+1",
        "1,234",
        "18%",
        "-5",
    ],
)
def test_a_reference_without_delimiters_is_its_own_answer(reference):
    """As in the column `answer` of MATH-500."""
    assert verifiers.math([], rf"So it is $\boxed{{{reference}}}$.", reference) == 1.0
    assert verifiers.math([], r"So it is $\boxed{77}$.", reference) == 0.0
    assert verifiers.math([], r"$\boxed{5}$", "(4, 5)") == 0.0


def test_forms_of_choices():
    assert not wrong(verifiers.choice, CHOICE)


def test_forms_of_json():
    assert not wrong(verifiers.json_schema, JSON)
    assert verifiers.json_schema([], "3", None, schema={"type": "integer"}) == 1.0


def test_forms_of_markers_and_constraints():
    assert not wrong(verifiers.format, {None: FORMAT})
    assert not wrong(verifiers.constraints, CONSTRAINTS)
    both = {"max_words": 3, "commas": True}
    assert verifiers.constraints([], "one two", None, constraints=both, partial=True) == 0.5


def test_there_are_two_hundred_forms():
    tables = (MATH, CHOICE, JSON, {None: FORMAT}, CONSTRAINTS)
    assert sum(len(forms(table)) for table in tables) >= 200


@pytest.mark.parametrize(
    ("verify", "reference", "sentence"),
    [
        (verifiers.math, None, "the prompt has no reference answer; name its column in"),
        (verifiers.choice, " ", "the prompt has no reference answer"),
        (verifiers.choice, "Paris", "the reference 'Paris' is none of the choices A, B, C, D"),
        (verifiers.json_schema, "{", "the reference '{' is no JSON"),
        (verifiers.json_schema, "[]", r"the reference '\[\]' is no JSON Schema"),
        (verifiers.json_schema, '{"type": "strin"}', "the JSON Schema is not valid: 'strin' is not valid"),
        (verifiers.constraints, '{"max_wrds": 3}', "'max_wrds' is no constraint; known: min_words"),
        (verifiers.code, "assert (", "is no Python code"),
        (verifiers.code, "print(1)", r"the reference 'print\(1\)' has no assert"),
        (verifiers.code, "[1]", "is no list of input and output"),
    ],
)
def test_a_reference_that_cannot_be_used_is_one_sentence(verify, reference, sentence):
    with pytest.raises(InputError, match=sentence):
        verify([], "A", reference)


def test_a_reference_without_mathematics_is_one_sentence():
    pytest.importorskip("math_verify")
    with pytest.raises(InputError, match="the reference 'who knows' has no mathematical expression"):
        verifiers.math([], "18", "who knows")


def test_what_takes_too_long_or_crashes_is_no_silent_zero():
    """And the next answer is verified as before."""
    pattern = {"type": "string", "pattern": "^(a+)+$"}
    hostile = json.dumps("a" * 40 + "b")
    started = time.monotonic()
    with pytest.raises(NoReward) as raised:
        verifiers.json_schema([], hostile, None, schema=pattern, seconds=0.5)
    assert (raised.value.reason, raised.value.reward) == ("timeout", None)
    assert time.monotonic() - started < 120
    with pytest.raises(NoReward) as raised:
        verifiers.json_schema([], hostile, None, schema=pattern, seconds=0.5, failed=-1.0)
    assert raised.value.reward == -1.0
    assert verifiers.json_schema([], '"aa"', None, schema=pattern) == 1.0


def test_hostile_mathematics_ends():
    pytest.importorskip("math_verify")
    for text in (r"$9^{9^{9^{9}}}$", "$10^{10^{10}}!$", r"\boxed{" * 3000, "$" + "(" * 5000, "(" * 10**5):
        try:
            assert verifiers.math([], text, "18", seconds=3) == 0.0
        except NoReward as error:
            assert error.reason and error.reward is None
    assert verifiers.math([], "18", "18") == 1.0


DOUBLE = "assert double(2) == 4\nassert double(-1) == -2"
ADD = json.dumps([{"input": "1 2\n", "output": "3"}, {"input": "5 5", "output": "10\n"}])


@pytest.mark.slow
def test_code_is_run_against_its_tests(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("42")
    cases = [
        ("```python\ndef double(x):\n    return 2 * x\n```", DOUBLE, 1.0),
        (
            "First:\n```\nx = 1\n```\nThen:\n```python\ndef double(x):\n    return x + x\n```\nDone.",
            DOUBLE,
            1.0,
        ),
        ("def double(x): return x + x", DOUBLE, 1.0),
        ("def double(x): return x * x", DOUBLE, 0.0),
        ("def double(x) return", DOUBLE, 0.0),
        ("import sys; sys.exit(0)", DOUBLE, 0.0),
        ("import os; os._exit(0)", DOUBLE, 0.0),
        ("a, b = map(int, input().split()); print(a + b)", ADD, 1.0),
        ("a, b = map(int, input().split()); print(a - b)", ADD, 0.0),
        ("print(3)", ADD, 0.0),
        (f"open({str(secret)!r}).read()\ndef double(x): return 2 * x", DOUBLE, 0.0),
        (
            "import socket; socket.create_connection(('1.1.1.1', 80), 1)\ndef double(x): return 2 * x",
            DOUBLE,
            0.0,
        ),
    ]
    assert [verifiers.code([], text, tests, seconds=5) for text, tests, _ in cases] == [
        wanted for *_, wanted in cases
    ]
    assert verifiers.code([], "print(3)", ADD, partial=True) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("while True: pass", {"timeout"}),
        ("import time; time.sleep(60)", {"timeout"}),
        ("x = [0] * 10**10\ndef double(x): return 2 * x", {"crash"}),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", {"crash"}),
        ("import os\nwhile True: os.fork()", {"timeout", "crash"}),
        (
            "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: pass\nwhile True: pass",
            {"timeout"},
        ),
    ],
)
def test_code_that_fails_is_counted(text, reasons):
    started = time.monotonic()
    with pytest.raises(NoReward) as raised:
        verifiers.code([], text, DOUBLE, seconds=1, megabytes=300)
    assert raised.value.reason in reasons and raised.value.reward == 0.0
    with pytest.raises(NoReward) as raised:
        verifiers.code([], text, DOUBLE, seconds=1, megabytes=300, failed=None)
    assert raised.value.reward is None
    assert time.monotonic() - started < 120

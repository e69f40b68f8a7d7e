"""References that a verifier cannot use are named before anything is trained."""

import json

import pytest

from prefline import files
from prefline.errors import InputError
from scripts.checks import check_references


def check(tmp_path, rows, function, **arguments):
    files.write_jsonl(tmp_path / "a.jsonl", rows)
    values = {"source": tmp_path / "a.jsonl", "columns": json.dumps({"prompt": "q", "reference": "a"})}
    values |= {"function": f"prefline/rewards/verifiers.py:{function}", "arguments": json.dumps(arguments)}
    values |= {"special-tokens": "drop", "max-dropped": 0.2, "reward": "right", "out": tmp_path / "o.json"}
    check_references.main([f"--{key}={value}" for key, value in values.items()])
    return files.read_json(tmp_path / "o.json")["found"]


def test_references_of_all_rows_are_tried(tmp_path):
    rows = [{"q": f"{n}?", "a": "B"} for n in range(30)]
    found = check(tmp_path, rows, "choice")
    assert found == "prefline/rewards/verifiers.py:choice can use the references of 30 prompts"
    with pytest.raises(InputError, match=r"^rewards.right: prompts.source: .*line 31: the reference"):
        check(tmp_path, [*rows, {"q": "Where?", "a": "Paris"}], "choice")
    with pytest.raises(InputError, match=r"line 1: the reference 'B' is none of the choices X, Y"):
        check(tmp_path, rows, "choice", choices="XY")
    with pytest.raises(InputError, match=r"line 2: the prompt has no reference answer"):
        check(tmp_path, [rows[0], {"q": "Where?", "a": None}], "choice")


def test_a_reference_without_mathematics_is_named(tmp_path):
    pytest.importorskip("math_verify")
    with pytest.raises(InputError, match=r"line 2: the reference 'who knows' has no mathematical"):
        check(tmp_path, [{"q": "1?", "a": "#### 18"}, {"q": "2?", "a": "who knows"}], "math")

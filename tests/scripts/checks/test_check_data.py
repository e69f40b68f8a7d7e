"""The first rows of all data: what is found before anything is trained."""

import json

import pytest

from prefline import files
from prefline.errors import InputError
from scripts.checks import check_data


def words(tmp_path, name, **data):
    values = {
        "name": name,
        "data": json.dumps(data),
        "special-tokens": "drop",
        "max-dropped": 0.2,
        "out": tmp_path / "o.json",
    }
    return [word for key, value in values.items() for word in (f"--{key}", str(value))]


def source(tmp_path, rows, **named):
    files.write_jsonl(tmp_path / "a.jsonl", rows)
    return {"source": str(tmp_path / "a.jsonl"), **named}


def test_the_first_rows_are_counted(tmp_path):
    rows = [{"q": "a?"}] * 1500
    given = source(tmp_path, [*rows, {"q": None}], entrance="prompts", columns={"prompt": "q"})
    check_data.main(words(tmp_path, "prompts", source=given))
    counts = files.read_json(tmp_path / "o.json")["source"]
    assert (counts["read"], counts["dropped"]) == (1000, {})
    assert counts["sources"][0]["forms"] == {"text": 1000}


BAD = {
    "a column": ("prompts", {"q": "a?"}, {"prompt": "question"}, "no column 'question', only ['q']"),
    "answers": (
        "pairs",
        {"chosen": "a", "rejected": "b"},
        {"chosen": "chosen", "rejected": "rejected"},
        "without a prompt",
    ),
    "labels": (
        "pairs",
        {"prompt": "a", "completion": "b", "label": 1},
        "auto",
        "set method: kto",
    ),
    "a role": (
        "dialogues",
        {"messages": [{"role": "robot", "content": "a"}]},
        {"messages": "messages"},
        "role 'robot'",
    ),
    "a form": ("texts", {"body": "a"}, "auto", "of no known form (text|content|document)"),
}


@pytest.mark.parametrize(("entrance", "row", "columns", "message"), BAD.values(), ids=BAD)
def test_what_would_stop_a_job_is_named_with_its_key(tmp_path, entrance, row, columns, message):
    given = source(tmp_path, [row], entrance=entrance, columns=columns)
    with pytest.raises(InputError) as error:
        check_data.main(words(tmp_path, "models.sft", train_data=given))
    assert str(error.value).startswith("models.sft.train_data: ") and message in str(error.value)
    assert not (tmp_path / "o.json").exists()

"""Data files: what is read, and what is said of a bad one."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefline.data import sources
from prefline.errors import InputError


def read(path, **columns):
    return [row for _, row in sources.read_rows(str(path), columns)]


def test_jsonl(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1, "b": "é"}\n\n{"a": 2, "b": "line\\nfeed"}', encoding="utf-8")
    assert read(path, x="b") == [{"x": "é"}, {"x": "line\nfeed"}]
    assert [where for where, _ in sources.read_rows(str(path), {"x": "b"})] == [
        f"{path}, line 1",
        f"{path}, line 3",
    ]


def test_csv(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n1,"two, ""quoted""\nlines"\n2,c\n', encoding="utf-8")
    assert read(path, x="b", y="a") == [{"x": 'two, "quoted"\nlines', "y": "1"}, {"x": "c", "y": "2"}]


def test_parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    messages = [[{"role": "user", "content": "Hi"}], [{"role": "user", "content": "Ho"}]]
    pq.write_table(pa.table({"messages": messages, "n": [1, 2]}), path)
    assert read(path, prompt="messages") == [{"prompt": messages[0]}, {"prompt": messages[1]}]
    assert [where for where, _ in sources.read_rows(str(path), {})] == [f"{path}, row 0", f"{path}, row 1"]


def test_a_null_column_is_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"a": 1}))
    assert read(path, x="a", y=None) == [{"x": 1}]


def test_a_malformed_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2\n{"a": 3}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl, line 2: not valid JSON"):
        read(path, x="a")


def test_a_line_is_an_object(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n[1, 2]\n')
    with pytest.raises(InputError, match=r"line 2: a JSON object is needed, not list"):
        read(path, x="a")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_missing_column_is_named_with_those_there_are(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"text": ["a"], "n": [1]}), path)
    else:
        path.write_text('{"text": "a", "n": 1}\n' if suffix == "jsonl" else "text,n\na,1\n")
    with pytest.raises(
        InputError, match=r"rows\.\w+, (line|row) \d: no column 'prompt', only \['n', 'text'\]"
    ):
        read(path, prompt="prompt")


@pytest.mark.parametrize(("line", "number"), [("a", 1), ("a,b,c", 3)])
def test_a_csv_row_has_as_many_fields_as_the_header(tmp_path, line, number):
    path = tmp_path / "rows.csv"
    path.write_text(f"x,y\n1,2\n{line}\n")
    with pytest.raises(InputError, match=rf"rows\.csv, line 3: has {number} fields, the header has 2"):
        read(path, x="x")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*gone\.jsonl"):
        read(tmp_path / "gone.jsonl", x="a")


def test_an_unknown_kind_of_file(tmp_path):
    (tmp_path / "rows.xlsx").write_text("{}")
    with pytest.raises(InputError, match=r"rows\.xlsx: data files end in \.jsonl, \.json, \.csv"):
        read(tmp_path / "rows.xlsx", x="a")


def test_hub_sources():
    assert sources.parse_hub("hub:org/set@0a1b#train_sft") == ("org/set", "0a1b", "train_sft")
    assert sources.parse_hub("hub:org/model@0a1b") == ("org/model", "0a1b", None)
    assert sources.parse_hub("data/rows.jsonl") is None
    assert sources.local_files("data/a.jsonl", None, "hub:org/set@0a1b#train") == ["data/a.jsonl"]


def test_a_file_that_snakemake_would_fill_in_is_named(tmp_path):
    (tmp_path / "{input}.json").touch()
    with pytest.raises(InputError, match=r"\{input\}.json: has a brace in its name; rename"):
        sources.members(str(tmp_path))


def test_a_branch_is_pinned_to_its_commit_and_nothing_else_changes(monkeypatch):
    monkeypatch.setattr(sources, "commit_of", lambda source: "b" * 40)
    pinned = f"hub:lab/main@{'b' * 40}#plain/train[:10]"
    assert sources.pinned("hub:lab/main@main#plain/train[:10]") == pinned
    assert sources.pinned("rows@main.jsonl") == "rows@main.jsonl"
    assert sources.pinned(None) is None

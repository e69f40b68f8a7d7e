"""Half of a character, or a byte that is no UTF-8, at every entrance of data: one rule, and no traceback."""

import gzip
import json

import pyarrow as pa
import pytest

from prefline import unicode
from prefline.data import benchmark_results, problems, prompts, reading, sources
from prefline.errors import InputError
from prefline.judging import fastchat
from prefline.judging import prompts as judge_prompts
from prefline.rewards import reward_bench, rubric

HALF = "a \ud83d"
GOOD = "good"
RULES = {"special_tokens": "as_text", "max_dropped": 1.0}


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def raw(rows):
    """JSON with a byte that is no UTF-8."""
    return jsonl(rows).replace(rb"\ud83d", b"\xe9")


def separated(delimiter):
    def made(rows):
        lines = [list(rows[0]), *([str(one) for one in row.values()] for row in rows)]
        return "\n".join(map(delimiter.join, lines)).encode("utf-8", "surrogatepass")

    return made


KINDS = {
    "a.jsonl": jsonl,
    "raw.jsonl": raw,
    "a.json": lambda rows: json.dumps(rows).encode(),
    "rows.json": lambda rows: json.dumps({"data": rows}).encode(),
    "a.jsonl.gz": lambda rows: gzip.compress(raw(rows)),
    "a.jsonl.zst": lambda rows: bytes(pa.compress(raw(rows), "zstd")),
    "a.csv": separated(","),
    "a.tsv": separated("\t"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_row_of_any_kind_of_file_is_dropped_and_counted(tmp_path, name):
    (tmp_path / name).write_bytes(KINDS[name]([{"text": GOOD}, {"text": HALF}, {"text": GOOD}]))
    data = reading.Data("texts", str(tmp_path / name), "auto", RULES)
    assert [row["text"] for row in data] == [GOOD, GOOD]
    assert data.as_dict()["dropped"] == {"not_unicode": 1}
    data.finish()


def messages(text, role="user"):
    return [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        {"role": role, "content": text},
    ]


TURNS = messages(HALF, "assistant")
STORED = json.dumps(messages(HALF))
TOOLS = [{"name": "f", "description": HALF}]
ENTRANCES = [
    ("prompts", {"prompt": HALF}),
    ("prompts", {"prompt": "q", "input": HALF}),
    ("prompts", {"prompt": "q", "system": HALF}),
    ("prompts", {"prompt": "q", "tools": TOOLS}),
    ("prompts", {"prompt": "q", "tools": json.dumps(TOOLS)}),
    ("prompts", {"prompt": "q", "reference": HALF}),
    ("prompts", {"dialogue": messages(HALF)}),
    ("prompts", {"dialogue": STORED}),
    ("prompts", {"prompt": f"Human: q\n\nAssistant: {HALF}\n\nHuman: r"}),
    ("pairs", {"prompt": HALF, "chosen": "b", "rejected": "c"}),
    ("pairs", {"prompt": "q", "chosen": HALF, "rejected": "c"}),
    ("pairs", {"prompt": "q", "chosen": "b", "rejected": HALF}),
    ("pairs", {"chosen": messages(HALF, "assistant"), "rejected": messages("c", "assistant")}),
    ("pairs", {"prompt": "q", "output_1": HALF, "output_2": "c", "preference": 1}),
    ("pairs", {"prompt": "q", "completions": [{"text": HALF, "score": 2}, {"text": "b", "score": 1}]}),
    ("pairs", {"prompt": "q", "completion": HALF, "label": True}),
    ("dialogues", {"messages": TURNS}),
    ("dialogues", {"messages": json.dumps(TURNS)}),
    ("dialogues", {"messages": messages("a", "assistant"), "tools": TOOLS}),
    ("dialogues", {"prompt": "q", "completion": HALF}),
    ("dialogues", {"text": HALF}),
    ("texts", {"text": HALF}),
]  # fmt: skip


@pytest.mark.parametrize(("entrance", "row"), ENTRANCES, ids=str)
def test_any_text_of_a_row_that_is_used_drops_it(tmp_path, entrance, row):
    (tmp_path / "a.jsonl").write_bytes(jsonl([row]))
    columns = {name: name for name in row}
    data = reading.Data(entrance, str(tmp_path / "a.jsonl"), columns, RULES, unpaired=True, write=json.dumps)
    assert list(data) == []
    assert data.as_dict()["dropped"] == {"not_unicode": 1}


def test_a_column_that_nobody_reads_matters_to_nobody(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(jsonl([{"text": GOOD, "author": HALF, HALF: 1}]))
    assert len(list(reading.Data("texts", str(tmp_path / "a.jsonl"), "auto", RULES))) == 1


def test_a_dataset_of_the_hub_is_refused_with_its_row(monkeypatch):
    def rows(*_, **__):
        yield {"text": GOOD}
        yield {"text": b"\xff".decode()}

    monkeypatch.setattr("datasets.load_dataset", rows)
    with pytest.raises(InputError, match="#train, row 1: has text that is not Unicode"):
        list(sources.records(f"hub:org/name@{'0' * 40}#train"))


QUESTION = {"question_id": 1, "category": "math", "turns": ["q"]}
ANSWER = {"question_id": 1, "choices": [{"index": 0, "turns": ["a"]}]}
PROMPT = {"name": "pair-v2", "type": "pairwise", "system_prompt": "", "output_format": "[[A]]"}
PREFERRED = {"prompt": "q", "chosen": ["a"], "rejected": ["b"], "subset": "s"}
# What must be whole: a reader of a file, and a row for it.
WHOLE = [
    (fastchat.read_questions, QUESTION | {"turns": [HALF]}),
    (fastchat.read_questions, QUESTION | {"category": HALF}),
    (fastchat.read_questions, QUESTION | {"question_id": HALF}),
    (fastchat.read_references, ANSWER | {"choices": [{"turns": ["a", HALF]}]}),
    (lambda path: prompts.question_ngrams(str(path), 3), QUESTION | {"turns": [HALF]}),
    (lambda path: judge_prompts.load(path, "pairwise"), PROMPT | {"prompt_template": HALF}),
    (reward_bench.read, PREFERRED | {"chosen": [HALF]}),
    (lambda path: problems.read(str(path), {"prompt": "q", "reference": "r"}, None), {"q": HALF, "r": "1"}),
    (lambda path: problems.read(str(path), {"prompt": "q", "reference": "r"}, None), {"q": "1", "r": HALF}),
    *(
        (lambda path, form=form: benchmark_results.read_questions(path, form), {key: "q", "more": HALF})
        for form, key in benchmark_results.QUESTION.items()
    ),
]  # fmt: skip


@pytest.mark.parametrize(("read", "row"), WHOLE)
@pytest.mark.parametrize("written", [jsonl, raw])
def test_a_file_that_must_be_whole_is_refused_with_its_row(tmp_path, read, row, written):
    (tmp_path / "a.jsonl").write_bytes(written([row]))
    with pytest.raises(InputError, match=r"a.jsonl, line 1: .*has text that is not Unicode"):
        read(tmp_path / "a.jsonl")


def test_a_rubric_is_refused(tmp_path):
    (tmp_path / "r.txt").write_bytes(b"{prompt} {completion} \xe9")
    with pytest.raises(InputError, match=r"r.txt: a rubric is a text file in UTF-8"):
        rubric.load(tmp_path / "r.txt")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}", '{"a": ', '"a"', "\ufeff3"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_benchmark_s_file_that_is_no_json_is_one_sentence(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(
        InputError, match=f"{name}.*(not valid JSON|object is needed|list of objects is needed)"
    ):
        list(benchmark_results.read_list(tmp_path / name))


def test_a_file_s_name_that_no_record_can_hold_is_refused(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "caf\udce9.jsonl").write_bytes(jsonl([{"text": GOOD}]))
    assert "has a byte in its name that is not UTF-8; rename the file" in sources.mistake(str(folder))
    with pytest.raises(InputError, match="rename the file, or remove it from the model"):
        sources.members(str(folder))


@pytest.mark.parametrize(
    ("value", "made"),
    [("a\ud83d", "a�"), ("\ud83d\ude00", "😀"), ({"a\udc00": ["\ud800", 1, None]}, {"a�": ["�", 1, None]})],
)
def test_foreign_text_is_made_valid(value, made):
    assert unicode.valid(value) == made
    assert unicode.is_valid(made) and not unicode.is_valid(value)

"""A benchmark's question in the training data is found, wherever in a row it stands."""

import csv
import json

from hypothesis import given
from hypothesis import strategies as st

from prefline import files
from scripts.benchmarks import check_contamination

WORDS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12).map(" ".join)


def check(tmp_path, training, questions, ngram=4):
    """The table of {name: rows} against {name: texts}."""
    sources, asked = {}, {}
    for name, rows in training.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sources[name] = [str(path), {key: key for key in rows[0]}]
    for name, texts in questions.items():
        path = tmp_path / f"{name}-questions.jsonl"
        path.write_text("".join(json.dumps({"turns": text}) + "\n" for text in texts))
        asked[name] = [str(path), "turns"]
    values = {"training": json.dumps(sources), "questions": json.dumps(asked), "decontamination-ngram": ngram}
    values |= {"out": tmp_path / "out.json", "csv": tmp_path / "out.csv"}
    check_contamination.main([f"--{name}={value}" for name, value in values.items()])
    with open(tmp_path / "out.csv") as file:
        rows = {(row["benchmark"], row["training"]): row for row in csv.DictReader(file)}
    return rows, files.read_json(tmp_path / "out.json")


def test_questions_are_counted_by_file_and_benchmark(tmp_path):
    dialogue = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "ONE two, three four!"}]
    rows, whole = check(
        tmp_path,
        {"sft": [{"messages": dialogue}], "pool": [{"text": "two three four five", "split": "test"}]},
        {"mt": [["say", "one two three four"], "two three four five"], "short": ["why", "three four"]},
    )
    assert rows["mt", "sft"] | {"share": 0} == {
        "benchmark": "mt", "training": "sft", "questions": "2", "found": "1", "share": 0,
    }  # fmt: skip
    assert rows["mt", "sft"]["share"] == "0.5"
    assert {key: row["found"] for key, row in rows.items() if key != ("mt", "sft")} == {
        ("mt", "pool"): "0", ("short", "sft"): "0", ("short", "pool"): "0",
    }  # fmt: skip
    (found,) = next(entry["examples"] for entry in whole["files"] if entry["found"])
    assert found["where"].endswith("sft.jsonl, line 1")


@given(st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=4), st.integers(1, 5))
def test_what_is_found_shares_an_ngram(texts, questions, n):
    from prefline.data import ngrams

    found = check_contamination.found_in(list(enumerate(texts)), questions, n)
    shared = {
        number
        for number, question in enumerate(questions)
        if ngrams.overlaps(question, ngrams.of_texts(texts, n), n)
    }
    assert set(found) == shared

"""Files that could mean two things: splits beside each other, caches, objects of rows, odd columns."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefline.data import sources
from prefline.errors import InputError


@pytest.mark.parametrize("name", ["val", "testing", "heldout", "held_out", "eval", "valid", "dev"])
def test_splits_beside_train_are_refused_in_folders_and_patterns(tmp_path, name):
    for split in ("train", name):
        (tmp_path / f"{split}.jsonl").write_text('{"q": 1}')
    for source in (str(tmp_path), f"{tmp_path}/*.jsonl", f"{tmp_path}/**/*.jsonl"):
        with pytest.raises(InputError, match="holds several splits"):
            list(sources.records(source))
    assert len(list(sources.records(f"{tmp_path}/tr*.jsonl"))) == 1


def test_caches_beside_a_saved_dataset_are_no_data(tmp_path):
    table = pa.table({"q": ["a", "b"]})
    for name in ("data-00000-of-00001.arrow", "cache-0a1b.arrow", "indices-0a1b.arrow"):
        with pa.OSFile(str(tmp_path / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    (tmp_path / "dataset_info.json").write_text("{}")
    for source in (str(tmp_path), f"{tmp_path}/*.arrow"):
        assert [row["q"] for _, row in sources.records(source)] == ["a", "b"]


ROWS = [{"q": "a"}, {"q": "b"}]
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    "found",
    [
        {"train": ROWS, "test": ROWS},
        {"train": ROWS, "test": ROWS[:1]},
        {"0": ROWS[0], "1": ROWS[1]},
        {"q": {"0": "a"}, "r": {"0": "b"}},
        {"columns": ["q"], "index": [0], "data": [["a"]]},
    ],
)
def test_an_object_that_is_no_list_of_rows_is_refused(tmp_path, found):
    (tmp_path / "a.json").write_text(json.dumps(found))
    with pytest.raises(InputError, match="save the rows as a list"):
        list(sources.records(str(tmp_path / "a.json")))


@pytest.mark.parametrize(
    ("found", "rows"),
    [
        ({"messages": TURNS}, [{"messages": TURNS}]),
        ({"data": ROWS, "errors": []}, ROWS),
        ({"q": ["a", "b"]}, ROWS),
    ],
)
def test_an_object_of_rows_is_read_as_them(tmp_path, found, rows):
    (tmp_path / "a.json").write_text(json.dumps(found))
    assert [row for _, row in sources.records(str(tmp_path / "a.json"))] == rows


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("us", tz="Mars/Phobos")])
def test_times_that_python_cannot_represent_stop_no_job(tmp_path, kind):
    table = pa.table({"q": ["a", "b"], "t": pa.array([2**60, -(2**60)], kind)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert [row for _, row in sources.records(str(tmp_path / "a.parquet"))] == ROWS

"""Files written by groups of rows are those of one write, whole or absent."""

import errno
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefline.data import containers, tables
from prefline.errors import InputError

ROWS = [
    {"prompt_id": str(number), "messages": [{"role": "user", "content": "a"}], "prompt_ids": [number]}
    for number in range(25)
]


@pytest.fixture(autouse=True)
def groups_of_ten(monkeypatch):
    monkeypatch.setattr(tables, "ROWS_IN_GROUP", 10)


def written(path, places=None):
    with tables.Writer(path, tables.PROMPTS) as file:
        for start in range(0, len(ROWS), 5):
            file.add([{**row, "where": "left out"} for row in ROWS[start : start + 5]])
        if places is not None:
            file.keep(places)
    return tables.read(path, tables.PROMPTS)


def test_groups_of_rows_are_the_rows_of_one_write(tmp_path):
    tables.write(tmp_path / "one.parquet", ROWS, tables.PROMPTS)
    assert written(tmp_path / "groups.parquet").equals(tables.read(tmp_path / "one.parquet", tables.PROMPTS))
    file = pq.ParquetFile(tmp_path / "groups.parquet")
    assert [file.metadata.row_group(number).num_rows for number in range(3)] == [10, 10, 5]


@pytest.mark.parametrize(
    "places",
    [[], [0], [9, 10], [24], [*range(25)], [3, 11, 12, 20], [*range(24, -1, -1)], [20, 3, 11, 4, 24]],
)
@pytest.mark.parametrize("in_part", [3, 1000])
def test_some_rows_are_kept_at_the_end_in_any_order(tmp_path, monkeypatch, places, in_part):
    monkeypatch.setattr(tables, "ROWS_IN_PART", in_part)
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 4)
    kept = written(tmp_path / "some.parquet", places)
    assert kept["prompt_id"].to_pylist() == [str(place) for place in places]
    assert [path.name for path in tmp_path.iterdir()] == ["some.parquet"]


def test_a_failure_leaves_no_file(tmp_path):
    with pytest.raises(KeyError), tables.Writer(tmp_path / "a.parquet", tables.PROMPTS) as file:
        file.add(ROWS)
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_group_holds_few_bytes_and_a_large_row_alone(tmp_path, monkeypatch):
    """Here the limit is 2 KB. Of a nested column, 2 GiB can be read at once."""
    monkeypatch.setattr(tables, "BYTES_IN_GROUP", 2000)
    sizes = [10, 900, 30, 1900, 5000, 20, 20, 2500, 100, 1000, 700]
    rows = [
        {"prompt_id": str(row), "messages": [{"role": "user", "content": "x" * size}], "prompt_ids": [row]}
        for row, size in enumerate(sizes)
    ]
    table = pa.Table.from_pylist(rows, schema=tables.PROMPTS)
    for given in (rows, table, pa.concat_tables([table.slice(0, 4), table.slice(4)])):
        tables.write(tmp_path / "a.parquet", given, tables.PROMPTS)
        with pq.ParquetFile(tmp_path / "a.parquet") as file:
            groups = [file.read_row_group(group) for group in range(file.num_row_groups)]
        assert all(group.nbytes <= 2000 or len(group) == 1 for group in groups) and len(groups) < len(rows)
        assert tables.read(tmp_path / "a.parquet", tables.PROMPTS).equals(table)
        found = pa.concat_tables(tables.batches(tmp_path / "a.parquet", tables.PROMPTS, 3))
        assert found.equals(table)
        for first, number in ((0, 11), (3, 2), (10, 1), (4, 0)):
            some = tables.read_slice(tmp_path / "a.parquet", tables.PROMPTS, first, number)
            assert some.equals(table.slice(first, number))


@pytest.mark.long
def test_three_gib_of_messages_come_back(tmp_path):
    """pyarrow refuses to read a nested column of more than 2 GiB from one group of rows."""
    text, rows = "a few words, " * 80_000, 3 * 2**30 // 1_040_000
    with tables.Writer(tmp_path / "a.parquet", tables.PROMPTS) as file:
        for row in range(rows):
            message = {"role": "user", "content": f"{row} {text}"}
            file.add([{"prompt_id": str(row), "messages": [message], "prompt_ids": [row]}])
    found = 0
    for batch in tables.batches(tmp_path / "a.parquet", tables.PROMPTS, 100):
        for row in batch.to_pylist():
            assert row["messages"][0]["content"] == f"{found} {text}"
            found += 1
    assert found == rows
    whole = tables.read(tmp_path / "a.parquet", tables.PROMPTS)
    assert whole.nbytes > 3 * 10**9
    tables.write(tmp_path / "b.parquet", whole, tables.PROMPTS)
    assert tables.read(tmp_path / "b.parquet", tables.PROMPTS).equals(whole)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-50], lambda data: b"", lambda data: data[:9] + b"9" * 40]
)
def test_a_file_cut_short_is_named(tmp_path, damage):
    path = tmp_path / "train-00003.parquet"
    tables.write(path, ROWS, tables.PROMPTS)
    path.write_bytes(damage(path.read_bytes()))
    for read in (tables.read, lambda *given: list(tables.batches(*given, 5))):
        with pytest.raises(
            InputError, match=r"train-00003.parquet: is cut short or damaged .* delete the file"
        ):
            read(path, tables.PROMPTS)


def test_a_disk_that_fills_leaves_no_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"), tables.Writer(tmp_path / "a", tables.PROMPTS) as file:
        file.add(ROWS[:5])
        monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
        file.add(ROWS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reader", ["tables", "containers"])
def test_groups_that_were_read_do_not_stay_in_memory(tmp_path, monkeypatch, reader):
    monkeypatch.setattr(tables, "ROWS_IN_GROUP", 1000)
    draw, path = np.random.default_rng(0), tmp_path / "large.parquet"
    ids = pa.FixedSizeListArray.from_arrays(draw.integers(0, 10**9, 12_000 * 200, dtype=np.int32), 200)
    rows = {"prompt_ids": ids.cast(tables.IDS), "prompt_id": ["a"] * 12_000}
    empty = {name: pa.nulls(12_000, tables.PROMPTS.field(name).type) for name in ("messages", "reference")}
    tables.write(path, pa.table({**rows, **empty}).select(tables.PROMPTS.names), tables.PROMPTS)
    del ids, rows, empty
    before, most = pa.total_allocated_bytes(), 0
    read = tables.batches(path, tables.PROMPTS, 1000) if reader == "tables" else containers.records(path)
    for _ in read:
        most = max(most, pa.total_allocated_bytes() - before)
    assert path.stat().st_size > 14 * 10**6 and most < 9 * 10**6

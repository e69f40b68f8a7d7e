"""Journals: exact values, damage that is seen and said, processes side by side, full disks."""

import errno
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefline import files
from prefline.provenance import journal, journal_index


@pytest.fixture(autouse=True, scope="module", params=[0, journal.UNINDEXED_BYTES])
def unindexed_bytes(request):
    """Run every test with an index of all rows that were read once, and without one."""
    usual, journal.UNINDEXED_BYTES = journal.UNINDEXED_BYTES, request.param
    yield request.param
    journal.UNINDEXED_BYTES = usual


SHAPED_BY = {"script": "test", "settings": {"temperature": 0.7}}


def open_journal(root, shaped_by=SHAPED_BY):
    return journal.Journal(root, "completions", shaped_by, "results/models/sft")


def refuse(missing):
    raise AssertionError(f"made again: {missing}")
    yield


def one_by_one(missing):
    for name, item in missing.items():
        yield {name: item}


def numbered(count):
    return {journal.key(number): number for number in range(count)}


def the_file(root):
    (path,) = root.glob("*/*/*.jsonl")
    return path


floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
ids = st.lists(st.integers(0, 2**31 - 1), max_size=20)
values = st.one_of(floats32, ids, st.text(st.characters(exclude_categories=())), st.tuples(ids, st.text()))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(values, max_size=8))
def test_values_come_back_exactly(tmp_path_factory, items):
    root = tmp_path_factory.mktemp("journal")
    wanted = {journal.key(number): value for number, value in enumerate(items)}
    made = open_journal(root).rows(wanted, one_by_one)
    found = open_journal(root).rows(wanted, refuse)
    as_json = {name: list(value) if isinstance(value, tuple) else value for name, value in wanted.items()}
    assert repr(found) == repr({name: as_json[name] for name in found}), "-0.0 and 0.0 are two numbers"
    assert made == wanted and found.keys() == wanted.keys()
    for value in found.values():
        if isinstance(value, float):
            assert float(np.float32(value)) == value


@given(st.lists(st.tuples(ids, st.integers()), min_size=2, max_size=6, unique_by=repr))
def test_keys_tell_rows_apart(rows):
    assert len({journal.key(*row) for row in rows}) == len(rows)


def test_only_what_is_missing_is_made(tmp_path):
    open_journal(tmp_path).rows(numbered(3), one_by_one)
    made = []

    def watched(missing):
        made.extend(missing.values())
        yield missing

    assert open_journal(tmp_path).rows(numbered(5), watched) == numbered(5)
    assert made == [3, 4]


def test_another_context_finds_nothing(tmp_path):
    open_journal(tmp_path).rows(numbered(1), one_by_one)
    other = SHAPED_BY | {"settings": {"temperature": 0.8}}
    with pytest.raises(AssertionError, match="made again"):
        open_journal(tmp_path, other).rows(numbered(1), refuse)


def test_a_context_holds_all_that_shapes_rows(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("1")

    def name(packages=("torch",), **values):
        return journal.key(
            journal.context("scripts/rewards/score_completions.py", tmp_path / "model", packages, **values)
        )

    usual = name(dtype="float32")
    assert name(dtype="float32") == usual
    assert name(dtype="bfloat16") != usual
    assert name(("torch", "transformers"), dtype="float32") != usual
    digest = files.sha256(tmp_path / "model/config.json")
    files.write_json(tmp_path / "model.json", {"files": {"config.json": digest}})
    assert name(dtype="float32") == usual, "a manifest stands for its directory"
    files.write_json(tmp_path / "model.json", {"files": {"config.json": "other weights"}})
    assert name(dtype="float32") != usual


def test_a_context_is_there_to_be_read(tmp_path):
    open_journal(tmp_path).rows(numbered(1), one_by_one)
    (path,) = tmp_path.glob("*/*/context.json")
    assert json.loads(path.read_text()) == {"about": "results/models/sft", "context": SHAPED_BY}


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda data: data[:-1], 4),  # torn at the very end
        (lambda data: data[:-20], 4),
        (lambda data: data.replace(b",1]", b",7]"), 2),
        (lambda data: data.replace(journal.key(2).encode(), journal.key(9).encode()), 3),
        (lambda data: b"\0" * 9 + data[9:], 1),
        (lambda data: data + b'["', 5),
        (lambda data: data + b"\xff\xfe\n", 5),
    ],
)
def test_damaged_rows_are_seen_said_and_made_again(tmp_path, capsys, damage, line):
    open_journal(tmp_path).rows(numbered(4), one_by_one)
    path = the_file(tmp_path)
    data = path.read_bytes()
    assert damage(data) != data
    path.write_bytes(damage(data))
    made = []

    def watched(missing):
        made.extend(missing)
        yield missing

    assert open_journal(tmp_path).rows(numbered(4), watched) == numbered(4)
    assert made == [journal.key(line - 1)] * (line < 5)
    assert capsys.readouterr().out.count(f"{path}, line {line}: damaged or cut off; computed again") == 1


@settings(max_examples=60)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_flipped_bit_yields_a_wrong_value(tmp_path_factory, place, bit):
    root = tmp_path_factory.mktemp("journal")
    open_journal(root).rows(numbered(3), one_by_one)
    data = bytearray(the_file(root).read_bytes())
    data[place % len(data)] ^= 1 << bit
    the_file(root).write_bytes(data)
    assert open_journal(root).rows(numbered(3), one_by_one) == numbered(3)


def test_many_lines_of_damage_are_one_line_of_output(tmp_path, capsys):
    open_journal(tmp_path).rows(numbered(2), one_by_one)
    the_file(tmp_path).write_bytes(b"x\n" * 50)
    open_journal(tmp_path).rows(numbered(2), one_by_one)
    assert "line 1 and 49 more: damaged" in capsys.readouterr().out


WRITER = """
import sys
from prefline.provenance import journal, journal_index
root, first = sys.argv[1], int(sys.argv[2])
def make(missing):
    for name, number in missing.items():
        yield {name: number}
kept = journal.Journal(root, "completions", {"script": "test"}, "-")
kept.rows({journal.key(number): number for number in range(first, first + 300)}, make)
"""


def test_processes_side_by_side_do_not_mix(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, str(first)]) for first in (0, 100, 200)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    found = open_journal(tmp_path, {"script": "test"}).rows(numbered(500), refuse)
    assert found == numbered(500)


def test_a_miss_and_a_find_read_no_row_of_others(tmp_path, monkeypatch, unindexed_bytes):
    """Shards of 50 rows, one after another: each row is read once for the index, whatever their number."""
    read = []
    rows = journal._rows
    monkeypatch.setattr(journal, "_rows", lambda *given: (read.append(row) or row for row in rows(*given)))
    numbers = {journal.key(number): number for number in range(50 * 40)}
    names = list(numbers)
    for shard in range(40):
        wanted = {name: numbers[name] for name in names[50 * shard : 50 * (shard + 1)]}
        assert open_journal(tmp_path).rows(wanted, one_by_one) == wanted
    read_once, read[:] = len(read), []
    if unindexed_bytes:
        assert read_once == sum(50 * shard for shard in range(40)), "small journals have no index"
        return
    assert read_once == 50 * 39
    assert open_journal(tmp_path).rows(numbers, refuse) == numbers
    assert len(read) == 50
    assert len(list(tmp_path.glob("*/*/index-*.sqlite"))) <= 8


SHARDS = """
import sys
from prefline.provenance import journal
journal.UNINDEXED_BYTES = 0
for shard in range(int(sys.argv[2]), 40, 4):
    wanted = {journal.key(number): number for number in range(10 * shard, 10 * shard + 15)}
    kept = journal.Journal(sys.argv[1], "completions", {"script": "test"}, "-")
    assert kept.rows(wanted, lambda missing: [missing]) == wanted
"""


def test_indexes_of_processes_side_by_side_are_one(tmp_path, unindexed_bytes):
    if unindexed_bytes:
        pytest.skip("the processes index everything")
    jobs = [subprocess.Popen([sys.executable, "-c", SHARDS, tmp_path, str(first)]) for first in range(4)]
    assert [job.wait() for job in jobs] == [0] * 4
    for _ in range(2):
        assert open_journal(tmp_path, {"script": "test"}).rows(numbered(405), refuse) == numbered(405)
    assert not list(tmp_path.glob("*/*/.*")), "no temporary file is left"


def test_a_file_that_grows_after_it_was_indexed(tmp_path):
    writer = open_journal(tmp_path)
    writer._append(dict(list(numbered(3).items())[:2]))
    whole = the_file(tmp_path).read_bytes()
    (torn,) = (journal._line(name, 2) for name in list(numbered(3))[2:])
    the_file(tmp_path).write_bytes(whole + torn[:20])
    assert open_journal(tmp_path).rows(numbered(2), refuse) == numbered(2)
    the_file(tmp_path).write_bytes(whole + torn)
    assert open_journal(tmp_path).rows(numbered(3), refuse) == numbered(3)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x" * 5000)])
def test_an_index_saves_time_and_nothing_else(tmp_path, damage):
    for count in (3, 300, 301):
        open_journal(tmp_path).rows(numbered(count), one_by_one)
    for path in tmp_path.glob("*/*/index-*.sqlite"):
        damage(path)
    for _ in range(2):
        assert open_journal(tmp_path).rows(numbered(301), refuse) == numbered(301)


def test_rows_made_again_after_damage_are_found(tmp_path):
    open_journal(tmp_path).rows(numbered(4), one_by_one)
    assert open_journal(tmp_path).rows(numbered(4), refuse)
    the_file(tmp_path).write_bytes(the_file(tmp_path).read_bytes().replace(b",1]", b",7]"))
    assert open_journal(tmp_path).rows(numbered(4), one_by_one) == numbered(4)
    for _ in range(2):
        assert open_journal(tmp_path).rows(numbered(4), refuse) == numbered(4)


def test_a_full_disk_costs_the_index_only(tmp_path, monkeypatch):
    open_journal(tmp_path).rows(numbered(4), one_by_one)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal_index, "_merge", full)
    assert open_journal(tmp_path).rows(numbered(4), refuse) == numbered(4)
    assert not list(tmp_path.glob("*/*/*index*"))


def test_thousands_of_small_files_are_read_in_time(tmp_path):
    open_journal(tmp_path).rows(numbered(2000), one_by_one)
    path = the_file(tmp_path)
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True)):
        path.with_name(f"host-{number}.jsonl").write_bytes(line)
    path.unlink()
    began = time.process_time()
    assert open_journal(tmp_path).rows(numbered(2000), refuse) == numbered(2000)
    assert time.process_time() - began < 1.0


def test_a_full_disk_is_said_once_and_costs_the_journal_only(tmp_path, capsys, monkeypatch):
    write = os.write

    def full(file, data):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(data)
        return write(file, data)

    written = []
    monkeypatch.setattr(os, "write", full)
    assert open_journal(tmp_path).rows(numbered(9), one_by_one) == numbered(9)
    assert capsys.readouterr().out.count("No space left on device; continuing without the journal") == 1


LIMITED = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
{WRITER}
print("whole")
"""


def test_a_real_limit_leaves_a_torn_line_that_does_no_harm(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path, "0"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "whole"
    assert done.stdout.count("continuing without the journal") == 1
    assert the_file(tmp_path).stat().st_size == 4000
    assert open_journal(tmp_path, {"script": "test"}).rows(numbered(300), one_by_one) == numbered(300)


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path, capsys):
    (tmp_path / "completions").write_text("in the way")
    assert open_journal(tmp_path).rows(numbered(3), one_by_one) == numbered(3)
    assert "continuing without the journal" in capsys.readouterr().out


def test_deleted_while_a_job_writes_and_reads(tmp_path):
    kept_rows = open_journal(tmp_path / "a")

    def interrupted(missing):
        for made in one_by_one(missing):
            yield made
            for path in (tmp_path / "a").rglob("*"):
                if path.is_file():
                    path.unlink()

    assert kept_rows.rows(numbered(3), interrupted) == numbered(3)
    gone = tmp_path / "a" / kept_rows.folder.relative_to(tmp_path / "a") / "gone.jsonl"
    gone.symlink_to(tmp_path / "nowhere")  # listed, but not there any more when it is opened
    assert open_journal(tmp_path / "a").rows(numbered(3), one_by_one) == numbered(3)

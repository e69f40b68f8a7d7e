"""The reader of all entrances: counts, the share of odd rows that stops a job, mixes, columns."""

import collections
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from some_prompts import data_of, held, user

from prefline import files
from prefline.data import reading
from prefline.errors import InputError

RULES = {"special_tokens": "drop", "max_dropped": 0.2}


def prompts(number, odd=0):
    return [{"prompt": f"{place}?"} for place in range(number)] + [{"prompt": None}] * odd


def test_every_row_is_kept_or_counted_by_source_and_form(tmp_path, capsys):
    files.write_jsonl(tmp_path / "a.jsonl", [*prompts(3, 1), {"prompt": [user("x")]}])
    (tmp_path / "b.jsonl").write_text('{"q": [{"from": "human", "value": "y"}]}\n{"q"\n')
    given = [str(tmp_path / "a.jsonl"), {"source": str(tmp_path / "b.jsonl"), "columns": {"prompt": "q"}}]
    data = reading.Data("prompts", given, {"prompt": "prompt"}, RULES, held)
    rows = list(data)
    assert [row["source"] for row in rows] == [0, 0, 0, 0, 1]
    assert rows[-1]["where"] == f"{tmp_path}/b.jsonl, line 1"
    data.drop(rows[0], "duplicate")
    data.finish()
    said = capsys.readouterr().out
    assert "a.jsonl: 5 rows read, 3 kept, dropped: 1 blank, 1 duplicate; forms: 1 messages, 3 text" in said
    assert "b.jsonl: 2 rows read, 1 kept, dropped: 1 malformed; forms: 1 sharegpt" in said
    assert data.as_dict() == {
        "read": 7,
        "dropped": {"blank": 1, "duplicate": 1, "malformed": 1},
        "sources": [
            {
                "source": str(tmp_path / "a.jsonl"),
                "read": 5,
                "kept": 3,
                "dropped": {"blank": 1, "duplicate": 1},
                "forms": {"messages": 1, "text": 3},
            },
            {
                "source": str(tmp_path / "b.jsonl"),
                "read": 2,
                "kept": 1,
                "dropped": {"malformed": 1},
                "forms": {"sharegpt": 1},
            },
        ],
    }


@pytest.mark.parametrize(
    ("good", "odd", "stops"),
    [
        (6, 4, False),
        (4, 4, False),
        (1, 4, True),
        (1, 2, True),
        (3, 5, True),
        (80, 20, False),
        (79, 21, True),
        (0, 1, True),
    ],
)
def test_more_than_a_share_of_odd_rows_stops_the_job(good, odd, stops):
    data = data_of("prompts", prompts(good, odd))
    rows = list(data)
    assert len(rows) == good
    if not stops:
        data.finish()
        return
    with pytest.raises(InputError) as error:
        data.finish()
    assert str(error.value).count("has no text") == min(odd, 3), "examples"
    assert f"row {good}: has no text" in str(error.value)


def test_rows_that_are_dropped_for_what_the_config_asks_stop_no_job():
    data = data_of("prompts", prompts(20))
    for row in list(data)[:19]:
        data.drop(row, "too_long")
    data.finish()


def test_many_odd_rows_stop_the_job_while_it_reads(tmp_path):
    files.write_jsonl(tmp_path / "a.jsonl", [{"prompt": None}] * 10_000)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("{" * 10)
    data = reading.Data("prompts", str(tmp_path / "a.jsonl"), "auto", RULES)
    with pytest.raises(InputError, match="10000 rows read, "):
        list(data)


def test_an_empty_file_holds_no_rows(tmp_path):
    (tmp_path / "a.jsonl").touch()
    data = reading.Data("prompts", str(tmp_path / "a.jsonl"), "auto", RULES)
    assert list(data) == []
    with pytest.raises(InputError, match=r"a\.jsonl: has no rows"):
        data.finish()


def mixed(tmp_path, numbers, weights, seed=1):
    """{source: texts that are taken} of sources with so many prompts each."""
    given = []
    for name, number, weight in zip("abc", numbers, weights, strict=False):
        files.write_jsonl(
            tmp_path / f"{name}.jsonl", [{"prompt": f"{name}{place}"} for place in range(number)]
        )
        given.append({"source": str(tmp_path / f"{name}.jsonl")} | ({"weight": weight} if weight else {}))
    data = reading.Data("prompts", given, "auto", RULES)
    rows = data.mix(list(data), lambda row: row["messages"][0]["content"], seed)
    data.finish()
    taken = collections.defaultdict(list)
    for row in rows:
        taken["abc"[row["source"]]].append(row["messages"][0]["content"])
    assert data.as_dict()["dropped"].get("not_taken", 0) == sum(numbers) - len(rows)
    return taken


def test_weights_are_the_shares_of_the_sources(tmp_path):
    taken = mixed(tmp_path, [100, 100], [3, 1])
    assert {name: len(texts) for name, texts in taken.items()} == {"a": 100, "b": 33}
    assert taken["b"] == sorted(taken["b"], key=lambda text: int(text[1:])), "in their order"
    assert mixed(tmp_path, [100, 100], [3, 1]) == taken
    assert mixed(tmp_path, [100, 100], [3, 1], seed=2) != taken
    assert set(mixed(tmp_path, [100, 100], [6, 1])["b"]) < set(taken["b"]), "fewer are among more"
    assert {name: len(texts) for name, texts in mixed(tmp_path, [10, 90, 50], [1, 1, 2]).items()} == {
        "a": 10,
        "b": 10,
        "c": 20,
    }
    assert {name: len(texts) for name, texts in mixed(tmp_path, [5, 7], [None, None]).items()} == {
        "a": 5,
        "b": 7,
    }


def test_all_sources_have_weights_or_none(tmp_path):
    with pytest.raises(InputError, match="give a weight to all data sources"):
        mixed(tmp_path, [5, 7], [1, None])


def test_nested_columns_of_parquet_are_read_alone(tmp_path):
    rows = [{"data": {"prompt": f"{place}?", "x": 1}, "image": b"\xff" * 9} for place in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    data = reading.Data("prompts", str(tmp_path / "a.parquet"), {"prompt": "data.prompt"}, RULES)
    assert [row["messages"] for row in data] == [[user(f"{place}?")] for place in range(3)]


def test_a_row_that_lacks_the_columns_of_the_others_is_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*prompts(3), {"p": 1}]))
    data = reading.Data("prompts", str(tmp_path / "a.jsonl"), {"prompt": "prompt"}, RULES)
    assert len(list(data)) == 3
    assert data.as_dict()["dropped"] == {"no_column": 1}


def reader(path, *lists, weights=None, limit=None):
    """A reading.Data of one file for each list of prompts."""
    for number, rows in enumerate(lists):
        files.write_jsonl(path / f"{number}.jsonl", rows)
    given = [{"source": str(path / f"{number}.jsonl")} for number in range(len(lists))]
    if weights is not None:
        given = [{**one, "weight": weight} for one, weight in zip(given, weights, strict=True)]
    return reading.Data("prompts", given, "auto", RULES, limit=limit)


def test_a_source_of_duplicates_stops_no_job_unless_it_has_a_weight(tmp_path):
    for weights in (None, [1, 1]):
        data = reader(tmp_path, prompts(3), prompts(3), weights=weights)
        rows = list(data)
        for row in rows[3:]:
            data.drop(row, "duplicate")
        if weights is None:
            assert len(data.mix(rows[:3], str, 1)) == 3
            data.finish()
        else:
            with pytest.raises(InputError, match=r"1\.jsonl: no row is left for its weight"):
                data.mix(rows[:3], str, 1)
    data = reader(tmp_path, prompts(3))
    for row in list(data):
        data.drop(row, "duplicate")
    with pytest.raises(InputError, match="no row is left"):
        data.finish()


def test_blank_rows_at_the_beginning_are_judged_after_all_rows(tmp_path, capsys):
    rows = [{"prompt": None}] * 3000 + prompts(17_000)
    data = reader(tmp_path, rows)
    assert len(list(data)) == 17_000
    data.finish()
    data = reader(tmp_path, rows, limit=4000)
    list(data)
    data.finish()
    assert "warning: " in capsys.readouterr().out
    for some, limit in ((rows, 3100), (rows[2000:5000], 4000)):
        data = reader(tmp_path, some, limit=limit)
        list(data)
        with pytest.raises(InputError, match=r"more than data\.max_dropped"):
            data.finish()


def test_a_column_that_begins_late_is_counted(tmp_path, capsys):
    data = reader(tmp_path, [*prompts(100), {"prompt": "a?", "system": "S", "input": ""}])
    list(data)
    data.finish()
    assert "not in the first 100 rows: system (1 rows)" in capsys.readouterr().out


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_is_a_finite_number_above_0(tmp_path, weight):
    with pytest.raises(InputError, match="a weight is a finite number above 0"):
        reader(tmp_path, prompts(1), prompts(1), weights=[weight, 1])


def test_a_row_without_the_rewards_of_others_has_none():
    rewarded = {"prompt": "a?", "chosen": "b", "rejected": "c", "score_chosen": 2, "score_rejected": 1}
    data = data_of("pairs", [rewarded, {"prompt": "d?", "chosen": "e", "rejected": "f"}])
    assert [row["chosen_reward"] for row in data] == [2.0, None]


def test_columns_of_one_name_are_refused(tmp_path):
    table = pa.table([["a?"], ["b?"]], names=["prompt", "prompt"])
    pq.write_table(table, tmp_path / "twice.parquet")
    with pa.ipc.new_file(tmp_path / "twice.arrow", table.schema) as writer:
        writer.write_table(table)
    for name in ("twice.parquet", "twice.arrow"):
        with pytest.raises(InputError, match=rf"{name}: has the column 'prompt' twice; rename one"):
            list(reading.Data("prompts", str(tmp_path / name), "auto", RULES))

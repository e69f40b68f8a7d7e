"""Containers of data: the same rows from each, and one sentence for what cannot be read."""

import csv
import gzip
import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefline.data import containers, sources
from prefline.data.counts import Odd
from prefline.errors import InputError

ROWS = [
    {"q": "It's \"so\",\nisn't it?", "n": "1"},
    {"q": "  é\u2028\x0cü \t", "n": "2"},
    {"q": "中文 😀", "n": ""},
]


def jsonl(rows=ROWS):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def separated(delimiter):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["q", "n"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue()


def parquet():
    made = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), made, row_group_size=2)
    return made.getvalue()


def arrow(new):
    made = io.BytesIO()
    table = pa.Table.from_pylist(ROWS)
    with new(made, table.schema) as writer:
        writer.write_table(table)
    return made.getvalue()


def zstd(data):
    return pa.compress(data, "zstd", asbytes=True)


CONTAINERS = {
    "a.jsonl": jsonl().encode(),
    "bom.jsonl": jsonl().encode("utf-8-sig"),
    "utf16.jsonl": jsonl().encode("utf-16"),
    "utf16be.jsonl": b"\xfe\xff" + jsonl().encode("utf-16-be"),
    "crlf.jsonl": jsonl().replace("\n", "\r\n").encode(),
    "no_end.jsonl": jsonl().rstrip().encode(),
    "blank_lines.jsonl": jsonl().replace("\n", "\n\n \n").encode(),
    "escaped.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "array.json": json.dumps(ROWS, indent=2).encode(),
    "bom.json": json.dumps(ROWS).encode("utf-8-sig"),
    "lines.json": jsonl().encode(),
    "data.json": json.dumps({"version": 1, "data": ROWS}).encode(),
    "columns.json": json.dumps({key: [row[key] for row in ROWS] for key in ("q", "n")}).encode(),
    "a.csv": separated(",").encode(),
    "bom.csv": separated(",").encode("utf-8-sig"),
    "utf16.csv": separated(",").encode("utf-16"),
    "a.tsv": separated("\t").encode(),
    "a.parquet": parquet(),
    "file.arrow": arrow(pa.ipc.new_file),
    "stream.arrow": arrow(pa.ipc.new_stream),
    "a.jsonl.gz": gzip.compress(jsonl().encode()),
    "two_members.jsonl.gz": gzip.compress(jsonl(ROWS[:1]).encode()) + gzip.compress(jsonl(ROWS[1:]).encode()),
    "a.jsonl.zst": zstd(jsonl().encode()),
    "two_frames.jsonl.zst": zstd(jsonl(ROWS[:1]).encode()) + zstd(jsonl(ROWS[1:]).encode()),
    "a.csv.gz": gzip.compress(separated(",").encode()),
    "a.json.zst": zstd(json.dumps(ROWS).encode()),
    "A.JSONL": jsonl().encode(),
}


def read(path):
    return [row for _, row in containers.records(path)]


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_same_rows_from_each(tmp_path, name):
    (tmp_path / name).write_bytes(CONTAINERS[name])
    assert read(tmp_path / name) == ROWS
    assert [row for _, row in sources.records(str(tmp_path / name), {"q"})] in (
        ROWS,
        [{"q": row["q"]} for row in ROWS],
    )


def test_a_text_file_is_one_document_as_it_is(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"  one\r\n\r\ntwo\n")
    assert read(tmp_path / "a.txt") == [{"text": "  one\r\n\r\ntwo\n"}]


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n"
REFUSED = {
    "lfs.parquet": (LFS, "is a pointer of Git LFS"),
    "lfs.jsonl": (LFS, "is a pointer of Git LFS"),
    "lfs.jsonl.gz": (LFS, "is a pointer of Git LFS"),
    "no.parquet": (b"<!DOCTYPE html>", "cannot be read as .parquet"),
    "half.parquet": (parquet()[:200], "cannot be read as .parquet"),
    "empty.parquet": (b"", "cannot be read as .parquet"),
    "no.arrow": (b"no arrow at all", "cannot be read as .arrow"),
    "half.arrow": (arrow(pa.ipc.new_file)[:100], "cannot be read as .arrow"),
    "empty.arrow": (b"", "cannot be read as .arrow"),
    "no.jsonl.gz": (b"no gzip", "cannot be read as .jsonl .gz"),
    "half.jsonl.gz": (gzip.compress(jsonl().encode() * 99)[:-20], "cannot be read as .jsonl .gz"),
    "no.jsonl.zst": (b"no zstd", "cannot be read as .jsonl .zst"),
    "half.jsonl.zst": (zstd(jsonl().encode() * 9)[:-9], "cannot be read as .jsonl .zst"),
    "no.json": (b"[1, 2", "not valid JSON"),
    "empty.json": (b"", "not valid JSON"),
    "number.json": (b"3", "a list of objects is needed, not int"),
    "quote.csv": (b'q,n\n"a,1\nb,2\n', "a quotation mark opens at line 2 and never closes"),
    "twice.csv": (b"q,q\n1,2\n", "has the column 'q' twice"),
    "half16.jsonl": ("a".encode("utf-16") + b"\x00", "cannot be decoded"),
    "a.xlsx": (b"", "data files end in .jsonl"),
    "noname": (b"", "data files end in .jsonl"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_one_sentence(tmp_path, name):
    data, message = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as error:
        read(tmp_path / name)
    assert message in str(error.value) and str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


# Files with one odd row among good ones: the reason is `malformed`, if nothing else is said.
ODD = {
    "cut.jsonl": b'{"q": "a"}\n{"q": "b"\n{"q": "c"}\n',
    "list.jsonl": b'{"q": "a"}\n["b"]\n{"q": "c"}\n',
    "comma.jsonl": b'{"q": "a"}\n{"q": "b",}\n{"q": "c"}\n',
    "deep.jsonl": b'{"q": "a"}\n' + b"[" * 200_000 + b'\n{"q": "c"}\n',
    "long_number.jsonl": b'{"q": "a"}\n{"q": ' + b"9" * 5000 + b'}\n{"q": "c"}\n',
    "nul.jsonl": b'{"q": "a"}\n\x00\x00\n{"q": "c"}\n',
    "element.json": b'[{"q": "a"}, 3, {"q": "c"}]',
    "fields.csv": b"q,n\na,1\nb\nc,2\n",
    "quote.csv": b'q,n\na,1\n"b"x,1\nc,2\n',
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_row_is_odd_and_the_others_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(ODD[name])
    first, odd, last = read(tmp_path / name)
    assert (first["q"], last["q"]) == ("a", "c")
    assert isinstance(odd, Odd) and odd.reason == "malformed"


def test_bytes_that_are_no_text_are_lone_surrogates(tmp_path):
    """Which every entrance drops as not_unicode."""
    (tmp_path / "latin.jsonl").write_bytes('{"q": "caf\xe9"}\n{"q": "a"}\n'.encode("latin-1"))
    assert read(tmp_path / "latin.jsonl") == [{"q": "caf\udce9"}, {"q": "a"}]


def test_text_of_parquet_that_is_no_unicode_is_odd(tmp_path):
    array = pa.StringArray.from_buffers(
        2, pa.py_buffer(b"\x00\x00\x00\x00\x01\x00\x00\x00\x03\x00\x00\x00"), pa.py_buffer(b"a\xff\xfe")
    )
    pq.write_table(pa.table({"q": array}), tmp_path / "a.parquet")
    good, odd = read(tmp_path / "a.parquet")
    assert good == {"q": "a"} and odd.reason == "not_unicode"


def test_long_fields_are_fields(tmp_path):
    text = "word " * 400_000
    (tmp_path / "a.csv").write_text(f"q,n\n{text},1\n")
    (tmp_path / "a.jsonl").write_text(json.dumps({"q": text}))
    assert [read(tmp_path / name)[0]["q"] for name in ("a.csv", "a.jsonl")] == [text, text]


def test_several_files_are_one_source(tmp_path):
    (tmp_path / "more").mkdir()
    for number, name in enumerate(["b.jsonl", "a.jsonl", "more/c.jsonl"]):
        (tmp_path / name).write_text(json.dumps({"q": number}))
    for name in ("README.md", ".hidden.jsonl", "dataset_info.json", "state.json", "_SUCCESS"):
        (tmp_path / name).write_text("{}")
    found = [row["q"] for _, row in sources.records(str(tmp_path))]
    assert found == [1, 0, 2]
    assert [row["q"] for _, row in sources.records(f"{tmp_path}/*.jsonl")] == [1, 0]
    assert [row["q"] for _, row in sources.records(f"{tmp_path}/**/*.jsonl")] == [1, 0, 2]
    assert sources.data_files(f"{tmp_path}/*.jsonl", [str(tmp_path / "more")], None, "hub:a/b@c#train") == [
        *(f"{tmp_path}/{name}" for name in ("a.jsonl", "b.jsonl")),
        f"{tmp_path}/more/c.jsonl",
    ]


def test_folders_of_several_kinds_or_splits_are_refused(tmp_path):
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "a.csv").touch()
    with pytest.raises(InputError, match=r"holds files of several kinds \(\.csv, \.jsonl\)"):
        list(sources.records(str(tmp_path)))
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00001.jsonl", "validation-00000-of-00001.jsonl"):
        (tmp_path / "data" / name).touch()
    with pytest.raises(InputError, match=r"holds several splits \(train, validation\); name "):
        list(sources.records(str(tmp_path / "data")))
    with pytest.raises(InputError, match="holds no data file"):
        list(sources.records(f"{tmp_path}/*.parquet"))


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_damaged_file_is_read_or_refused_in_one_sentence(tmp_path, name):
    """Whatever bytes it has: no other exception, and no crash of a library."""
    draw = random.Random(name)
    for _ in range(25):
        data, place = bytearray(CONTAINERS[name]), draw.randrange(len(CONTAINERS[name]))
        noise = draw.randbytes(draw.randint(0, 9))
        data[place : place + draw.choice([0, len(noise), 9, len(data)])] = noise
        (tmp_path / name).write_bytes(data)
        try:
            read(tmp_path / name)
        except InputError as error:
            assert "\n" not in str(error)

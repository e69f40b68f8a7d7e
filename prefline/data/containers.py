"""Read the rows of a data file: jsonl, json, csv, tsv, parquet, arrow or txt, also as gz or zst.

A row is a dict, or an Odd if only this row cannot be read. Text stays unchanged. Memory does not grow with
the file, except for json (one array) and txt (one document).
"""

import csv
import io
import json
import sys
import zlib
from pathlib import Path

from prefline import paths, unicode
from prefline.data.counts import Odd
from prefline.errors import InputError

COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32"}
BOMS |= {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
ROWS_AT_ONCE = 1024


def kind_of(path):
    """Return the kind of a data file (a key of READERS) by its name; raise InputError for an unknown kind."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    if kind not in READERS:
        raise InputError(
            f"{path}: data files end in {', '.join(READERS)}, or in one of these and {', '.join(COMPRESSED)}"
        )
    return kind


def records(path, columns=None):
    """Yield (where, row) of the file `path`; `where` (str) names the row's place for messages.

    columns: names of the columns to read from a file that stores them separately (parquet), None for all.
    Raises InputError for a missing file, and for one that cannot be read as the kind that its name has.
    """
    path = Path(path)
    reader = READERS[kind_of(path)]
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if wrong := paths.unreadable(path):
        raise InputError(wrong)
    # Imported here, since most scripts read no data.
    import pyarrow as pa

    try:
        yield from reader(path, columns) if reader in (_parquet, _arrow) else reader(path)
    except (pa.ArrowException, EOFError, OSError, zlib.error) as error:
        said = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be read as {' '.join(path.suffixes) or 'data'} ({said:.120}); is the file whole?"
        ) from None
    except UnicodeError as error:
        raise InputError(f"{path}: cannot be decoded ({error}); save it as UTF-8") from None


def _bytes(path):
    """Open a file for reading bytes, decompressed."""
    compression = COMPRESSED.get(path.suffix.lower())
    if compression is None:
        return open(path, "rb")
    if compression == "gzip":
        import gzip

        return gzip.open(path, "rb")
    import pyarrow as pa

    return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), compression))


def _text(path, newline=None):
    """Open a file for reading text. Bytes that are not text become lone surrogates, as in broken JSON."""
    file = io.BufferedReader(_bytes(path))
    first = file.peek(64)[:64]
    encoding = next((encoding for bom, encoding in BOMS.items() if first.startswith(bom)), "utf-8")
    if encoding == "utf-8" and 4 * first.count(0) > len(first):
        raise UnicodeError("it has zero bytes, as UTF-16 and UTF-32 have")
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    return io.TextIOWrapper(file, encoding=encoding, errors=errors, newline=newline)


def _jsonl(path):
    with _text(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}, line {number}", _object(line)


def _object(text):
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        return Odd("malformed", f"not valid JSON ({error.msg} at column {error.colno})")
    except (RecursionError, ValueError) as error:
        return Odd("malformed", f"not valid JSON ({error})")
    return record if isinstance(record, dict) else _no_object(record)


def _no_object(record):
    return Odd("malformed", f"a JSON object is needed, not {type(record).__name__}")


def _json(path):
    with _text(path) as file:
        text = file.read()
    try:
        rows = json.loads(text)
    except (RecursionError, ValueError) as error:
        lines = text.strip().split("\n")
        if len(lines) > 1 and isinstance(_object(lines[0]), dict):
            yield from _jsonl(path)  # common for files of the hub
            return
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if isinstance(rows, dict):
        rows = _rows_of_object(path, rows)
    if not isinstance(rows, list):
        raise InputError(f"{path}: a list of objects is needed, not {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        yield f"{path}, entry {number}", row if isinstance(row, dict) else _no_object(row)


def _rows_of_object(path, found):
    """Return the rows (list) of a json file with one object (dict): {"data": [rows]}, columns, or one row."""
    lists = {key: value for key, value in found.items() if isinstance(value, list)}
    tables = [key for key, value in lists.items() if value and all(map(_is_row, value))]
    objects = [key for key, value in found.items() if isinstance(value, dict)]
    if len(tables) > 1 or len(objects) == len(found) > 1 or {"columns", "data"} <= lists.keys():
        names = ", ".join(map(repr, list(found)[:4]))
        raise InputError(
            f"{path}: is one object with the keys {names}, not a list of rows; save the rows as a list (or "
            "as jsonl), and each split as a file"
        )
    if any(map(_has_turns, lists.values())):
        return [found]
    if len(tables) == 1:
        return lists[tables[0]]
    if lists and len(lists) == len(found) and len(set(map(len, lists.values()))) == 1:
        return [dict(zip(found, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    return [found]


def _is_row(value):
    """Return whether an element of a list is a row (dict), not a message of one dialogue."""
    return isinstance(value, dict) and not any(key in value for key in ("role", "from"))


def _has_turns(values):
    return any(isinstance(value, dict) and not _is_row(value) for value in values)


def _csv(path):
    yield from _separated(path, ",")


def _tsv(path):
    yield from _separated(path, "\t")


def _separated(path, delimiter):
    csv.field_size_limit(sys.maxsize)
    with _text(path, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header, number = None, 0
        while True:
            first = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" in str(error):
                    raise InputError(
                        f"{path}: a quotation mark opens at line {first} and never closes; close it"
                    ) from None
                if header is None:
                    raise InputError(f"{path}: has no header that can be read ({error})") from None
                yield f"{path}, line {reader.line_num}", Odd("malformed", str(error))
                continue
            if header is None:
                header = fields
                _check_names(path, header)
                continue
            number += 1
            if not fields:
                continue
            where = f"{path}, line {reader.line_num}"
            if len(fields) == len(header):
                yield where, dict(zip(header, fields, strict=True))
            else:
                yield where, Odd("malformed", f"has {len(fields)} fields, the header has {len(header)}")


def _check_names(path, names):
    """Raise InputError if two columns of a file have one name."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path}: has the column {twice[0]!r} twice; rename one")


def _parquet(path, columns):
    import pyarrow.parquet as pq

    source = path
    if path.suffix.lower() in COMPRESSED:
        with _bytes(path) as file:
            source = io.BytesIO(file.read())
    # pyarrow would otherwise keep all groups that it has read in memory.
    with pq.ParquetFile(source, pre_buffer=False) as file:
        _check_names(path, file.schema_arrow.names)
        names = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
        yield from _batches(path, file.iter_batches(batch_size=ROWS_AT_ONCE, columns=names))


def _arrow(path, columns):
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        if path.suffix.lower() in COMPRESSED:
            with _bytes(path) as compressed:
                file = pa.BufferReader(compressed.read())
        magic = file.read(6)
        file.seek(0)
        if magic == b"ARROW1":
            reader = pa.ipc.open_file(file)
            _check_names(path, reader.schema.names)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            batches = pa.ipc.open_stream(file)
            _check_names(path, batches.schema.names)
        yield from _batches(path, _pieces(batches))


def _pieces(batches):
    for batch in batches:
        batch.validate(full=True)  # a damaged file would crash the process
        for start in range(0, len(batch), ROWS_AT_ONCE):
            yield batch.slice(start, ROWS_AT_ONCE)


def _batches(path, batches):
    number = 0
    for batch in batches:
        for row in _rows(batch):
            yield f"{path}, row {number}", row
            number += 1


def _rows(batch):
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        return [_row(batch, place) for place in range(len(batch))]
    except (OverflowError, ValueError, KeyError):  # times that Python cannot represent: without these columns
        good = [number for number, column in enumerate(batch.columns) if _fits_python(column)]
        return _rows(batch.select(good))


def _fits_python(column):
    try:
        column.to_pylist()
    except UnicodeDecodeError:
        return True
    except (OverflowError, ValueError, KeyError):
        return False
    return True


def _row(batch, place):
    try:
        return batch.slice(place, 1).to_pylist()[0]
    except UnicodeDecodeError:
        return Odd("not_unicode", unicode.FAULT)


def _txt(path):
    with _text(path, newline="") as file:
        yield f"{path}", {"text": file.read()}


READERS = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".txt": _txt,
}

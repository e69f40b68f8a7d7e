"""The parquet artifacts: their columns, declared once, and how they are written and read."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prefline import files, optional_packages
from prefline.errors import InputError

# Before its first conversion pyarrow imports pandas where it can, which takes longer than most of what is
# done with a table here. It looks again when a DataFrame is asked for.
with optional_packages.absent("pandas"):
    pa.array([0])

ROWS_IN_GROUP, BYTES_IN_GROUP = 10_000, 2**27  # at most, of a file's groups of rows
ROWS_IN_PART = 50_000  # that are put in order in memory
ROWS_AT_ONCE = 1000  # that are Python objects
ABOUT = b"prefline"  # the key of a file's metadata
IDS = pa.list_(pa.int32())
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

PROMPTS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("messages", MESSAGES),
        ("prompt_ids", IDS),
        ("reference", pa.string()),
    ]
)
POOL = PROMPTS.append(pa.field("split", pa.string()))
# The answer is the completion without its reasoning, and null where the two are the same.
COMPLETIONS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("completion_ids", IDS),
        ("completion", pa.string()),
        ("answer", pa.string()),
        ("finish_reason", pa.string()),
        ("seed", pa.int64()),
    ]
)
# The reward is null for a completion that could not be scored. `parts` are the numbers that it is made of,
# where there are several: a score from each head, or the probability of winning against each sample.
REWARDS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("reward", pa.float32()),
        ("parts", pa.list_(pa.float32())),
    ]
)
# Every completion as it was ranked; `role` is chosen, rejected or null.
RANKED = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("split", pa.string()),
        ("sample", pa.int32()),
        ("length", pa.int32()),
        ("finish_reason", pa.string()),
        ("reward", pa.float32()),
        ("win_probability", pa.float32()),
        ("role", pa.string()),
    ]
)
# Ids are null where a pair comes from an existing preference dataset: tokenizing makes them.
PREFERENCES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("split", pa.string()),
        ("messages", MESSAGES),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("chosen_reward", pa.float32()),
        ("rejected_reward", pa.float32()),
        ("chosen_win_probability", pa.float32()),
        ("rejected_win_probability", pa.float32()),
        ("chosen_sample", pa.int32()),
        ("rejected_sample", pa.int32()),
        ("prompt_ids", IDS),
        ("chosen_ids", IDS),
        ("rejected_ids", IDS),
    ]
)
TOKENIZED = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("split", pa.string()),
        ("prompt_ids", IDS),
        ("chosen_ids", IDS),
        ("rejected_ids", IDS),
        ("chosen_reward", pa.float32()),
        ("rejected_reward", pa.float32()),
        ("chosen_win_probability", pa.float32()),
        ("rejected_win_probability", pa.float32()),
    ]
)
REF_LOGPS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("ref_chosen_logps", pa.float32()),
        ("ref_rejected_logps", pa.float32()),
        ("chosen_tokens", pa.int32()),
        ("rejected_tokens", pa.int32()),
    ]
)


def write(path, rows, schema, about=None):
    """Write `rows` (a list of dicts, or a pyarrow Table) to the parquet file `path`, whole or not at all.

    about: a JSON value that the file's metadata keeps, for `metadata` to give back; None: none.
    """
    with Writer(path, schema, about) as file:
        file.add(rows)


class Writer:
    """Write a parquet file by groups of rows, whole or not at all: `with Writer(path, schema) as file`.

    A group has at most ROWS_IN_GROUP rows, and at most BYTES_IN_GROUP unless it is one row. So memory does
    not grow with the file, and no nested column of a group exceeds the 2 GiB that pyarrow can read.
    """

    def __init__(self, path, schema, about=None):
        """Prepare to write rows of `schema`; about: as `write` takes it."""
        self.schema = schema
        self.written = _described(schema, about)
        self.waiting, self.rows, self.bytes = [], 0, 0
        self.whole = files.atomic(path)

    def __enter__(self):
        self.path = self.whole.__enter__()
        self._open()
        return self

    def __exit__(self, *failure):
        try:
            if failure[0] is None:
                self._flush()
            self.file.close()
        except BaseException as error:
            self.whole.__exit__(type(error), error, error.__traceback__)
            raise
        return self.whole.__exit__(*failure)

    def add(self, rows):
        """Write rows: a list of dict, of which other keys are left out, or a pyarrow Table."""
        if not isinstance(rows, pa.Table):
            for start in range(0, len(rows), ROWS_AT_ONCE):
                some = pa.Table.from_pylist(rows[start : start + ROWS_AT_ONCE], schema=self.schema)
                self._add(some)
        elif len(rows):
            self._add(rows.cast(self.schema))

    def keep(self, places, about=None):
        """Leave only the rows at `places` (list of int, each once) of those written so far, in that order.

        about: as `write` takes it, in place of the previous one.
        """
        self._flush()
        self.file.close()
        everything = self.path.with_name(f"{self.path.name}.all")
        self.path.rename(everything)
        self.written = _described(self.schema, about) if about is not None else self.written
        try:
            self._open()
            for part in _in_order(everything, np.asarray(places, dtype=np.int64)):
                self.add(part)
        finally:
            everything.unlink()

    def _open(self):
        self.file = pq.ParquetWriter(self.path, self.written, compression="zstd")

    def _add(self, table):
        """Add a Table with as many rows at a time as fit into the group; a row too large is a group alone."""
        first = 0
        while first < len(table):
            number = min(len(table) - first, ROWS_IN_GROUP - self.rows)
            some = table.slice(first, number)
            while self.bytes + some.nbytes > BYTES_IN_GROUP and number > 1:
                number = -(-number // 2)
                some = some.slice(0, number)
            if self.rows and self.bytes + some.nbytes > BYTES_IN_GROUP:
                self._flush()
                continue
            self.waiting.append(some)
            self.rows, self.bytes = self.rows + number, self.bytes + some.nbytes
            first += number
            if self.rows == ROWS_IN_GROUP:
                self._flush()

    def _flush(self):
        if self.waiting:
            group = pa.concat_tables(self.waiting).replace_schema_metadata(self.written.metadata)
            self.file.write_table(group)
            self.waiting, self.rows, self.bytes = [], 0, 0


def _described(schema, about):
    return schema if about is None else schema.with_metadata({ABOUT: json.dumps(about, sort_keys=True)})


def _in_order(path, places):
    """Yield the rows (Tables) of a parquet file at `places` (int array), in that order.

    The file is read once: its rows go to a temporary file of the part that they belong to.
    """
    with pq.ParquetFile(path, pre_buffer=False) as source:
        to = np.full(source.metadata.num_rows, -1)
        to[places] = np.arange(len(places))
        parts = [path.with_name(f"{path.name}.{part}") for part in range(-(-len(places) // ROWS_IN_PART))]
        schema = source.schema_arrow.append(pa.field("to", pa.int64()))
        first = 0
        try:
            with contextlib.ExitStack() as stack:
                written = [stack.enter_context(_stream(part, schema, "lz4")) for part in parts]
                for batch in source.iter_batches(ROWS_AT_ONCE):
                    ranks = to[first : first + len(batch)]
                    first += len(batch)
                    for part in np.unique(ranks[ranks >= 0] // ROWS_IN_PART):
                        mine = np.flatnonzero((ranks >= 0) & (ranks // ROWS_IN_PART == part))
                        some = batch.take(pa.array(mine)).append_column("to", pa.array(ranks[mine]))
                        written[part].write_batch(some)
            for part in parts:
                rows = map_arrow(part)
                order = np.argsort(rows["to"].to_numpy())
                rows = rows.drop_columns("to")
                for start in range(0, len(order), ROWS_AT_ONCE):
                    yield rows.take(pa.array(order[start : start + ROWS_AT_ONCE]))
        finally:
            for part in parts:
                part.unlink(missing_ok=True)


def write_arrow(path, groups, schema):
    """Write Tables of `schema` (iterable), one after the other, to the file `path`, for `map_arrow`."""
    with files.atomic(path) as temporary, _stream(temporary, schema, None) as stream:
        for group in groups:
            stream.write_table(group)


def map_arrow(path):
    """Return the rows of `write_arrow`'s file (Table). Only what is read of it is in memory.

    Processes of one machine share that memory, and the kernel may take it back.
    """
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return stream.read_all()


@contextlib.contextmanager
def _stream(path, schema, compression):
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema, options=options) as stream:
        yield stream


def metadata(schema):
    """Return the `about` that a file was written with, from the schema it was read with; None without."""
    kept = (schema.metadata or {}).get(ABOUT)
    return None if kept is None else json.loads(kept)


@contextlib.contextmanager
def opened(path, schema):
    """Yield the ParquetFile `path`; InputError if it is damaged or its columns are not those of `schema`."""
    again = "delete the file and let its rule make it again"
    try:
        # pyarrow would otherwise keep all groups that it has read in memory.
        with pq.ParquetFile(path, pre_buffer=False) as file:
            if not file.schema_arrow.equals(schema, check_metadata=False):
                raise InputError(
                    f"{path}: has the columns {file.schema_arrow.names} where {schema.names} are needed; "
                    f"{again}"
                )
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; let its rule make it") from None
    except (pa.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None):  # such as no permission
            raise
        raise InputError(f"{path}: is cut short or damaged ({str(error)[:80]}); {again}") from None


def batches(path, schema, number):
    """Yield the rows of a parquet file as Tables of at most `number` rows. Raises as `opened`."""
    with opened(path, schema) as file:
        for batch in file.iter_batches(number):
            yield pa.Table.from_batches([batch])


def read(paths, schema, columns=None):
    """Return one pyarrow Table of the parquet file(s) `paths`, in the order given.

    columns: names of those to read; None: all. Raises InputError if a file does not have exactly the columns
    of `schema`.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    tables = [table for path in paths for table in _groups(path, schema, columns)]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _groups(path, schema, columns):
    """Return the row groups of a file (list of Table): of a nested column 2 GiB can be read at once."""
    with opened(path, schema) as file:
        groups = [file.read_row_group(number, columns=columns) for number in range(file.num_row_groups)]
        return groups or [file.schema_arrow.empty_table()]


def read_slice(path, schema, first, number):
    """Return the rows first … first + number - 1 (Table) of a parquet file; read only their row groups."""
    tables = []
    with opened(path, schema) as file:
        start = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            begin, end = max(first - start, 0), min(first + number - start, rows)
            if begin < end:
                tables.append(file.read_row_group(group).slice(begin, end - begin))
            start += rows
    return pa.concat_tables(tables) if tables else schema.empty_table()


def read_column(path, schema, name, first, number):
    """Yield one column of the rows first … first + number - 1 as Arrays; it is read by row group."""
    with opened(path, schema) as file:
        start = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            begin, end = max(first - start, 0), min(first + number - start, rows)
            if begin < end:
                yield from file.read_row_group(group, columns=[name])[name].slice(begin, end - begin).chunks
            start += rows


def arrays(column):
    """Return the rows of a column of lists (ChunkedArray) as a list of int64 arrays."""
    found = []
    for chunk in column.chunks:
        ids, ends = chunk.flatten().to_numpy().astype(np.int64), np.cumsum(pc.list_value_length(chunk))
        found += np.split(ids, ends[:-1]) if len(ends) else []
    return found


def read_rows(paths, schema):
    """Return the rows of `read` as a list of dicts."""
    return read(paths, schema).to_pylist()

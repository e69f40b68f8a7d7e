"""The parquet artifacts: their columns, declared once, and how they are written and read."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prefline import files, optional_packages
from prefline.errors import InputError

# Before its first conversion pyarrow imports pandas where it can, which takes longer than most of what is
# done with a table here. It looks again when a DataFrame is asked for.
with optional_packages.absent("pandas"):
    pa.array([0])

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
COMPLETIONS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("completion_ids", IDS),
        ("completion", pa.string()),
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
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, schema=schema)
    table = table.cast(schema)
    if about is not None:
        table = table.replace_schema_metadata({ABOUT: json.dumps(about, sort_keys=True)})
    with files.atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def metadata(table):
    """The `about` that the file of a Table was written with; None if there was none."""
    kept = (table.schema.metadata or {}).get(ABOUT)
    return None if kept is None else json.loads(kept)


def read(paths, schema):
    """One pyarrow Table of the parquet file(s) `paths`, in the order given.

    Raises InputError if a file does not have exactly the columns of `schema`.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    tables = []
    for path in paths:
        table = pq.read_table(path)
        if not table.schema.equals(schema, check_metadata=False):
            raise InputError(
                f"{path}: has the columns {table.schema.names} where {schema.names} are needed; "
                "delete the file and let its rule make it again"
            )
        tables.append(table)
    return pa.concat_tables(tables) if tables else schema.empty_table()


def read_rows(paths, schema):
    """The rows of `read` as a list of dicts."""
    return read(paths, schema).to_pylist()

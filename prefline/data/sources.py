"""Where data comes from: a jsonl, parquet or csv file, or a hub dataset pinned by revision.

A source is a path, or `hub:ID@COMMIT` for a model, `hub:ID@COMMIT#SPLIT` for a dataset (`#CONFIG/SPLIT` for
one that has several), and for a file that a rule fetches `https://ADDRESS#sha256=HEX`. `columns` names, for
every field the workflow needs, the column of the data that holds it; null where the data has none.
"""

import csv
import json
import re
from pathlib import Path

from prefline.errors import InputError


def parse_hub(source):
    """(id, revision, split) of a hub source, split None where there is none; None for a local path."""
    match = re.fullmatch(r"hub:([^@#]+)@([^@#]+)(?:#(.+))?", source)
    return match.groups() if match else None


def parse_url(source):
    """(address, sha256) of a file that is fetched; None for any other source."""
    match = re.fullmatch(r"(https?://[^#]+)#sha256=([0-9a-f]{64})", source)
    return match.groups() if match else None


def is_commit(revision):
    """Whether a hub revision is a commit, which never changes, and not a branch or tag."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def commit_of(source):
    """The commit (40 hexadecimal digits) that a hub source means now: its own, or where its branch stands.

    Raises InputError if the hub does not know it, or cannot be reached.
    """
    import httpx2
    from huggingface_hub import HfApi, errors

    name, revision, split = parse_hub(source)
    if is_commit(revision):
        return revision
    info = HfApi().model_info if split is None else HfApi().dataset_info
    try:
        return info(name, revision=revision).sha
    except (errors.HfHubHTTPError, errors.HFValidationError, httpx2.HTTPError, ConnectionError) as error:
        raise unreachable(source, error) from error


def pinned(source):
    """A source as it is, but with the commit where it names a branch of the hub.

    Raises InputError as commit_of does.
    """
    if source is None or parse_hub(source) is None:
        return source
    return source.replace(f"@{parse_hub(source)[1]}", f"@{commit_of(source)}", 1)


def unreachable(source, error):
    """The InputError for a hub source that `error` (Exception) keeps from being had."""
    name = parse_hub(source)[0]
    return InputError(
        f"{source} cannot be downloaded ({type(error).__name__}); check the name, the revision and the "
        f"network; if https://huggingface.co/{name} asks for your consent to a licence, give it there and "
        "set HF_TOKEN in the environment"
    )


def local_files(*sources):
    """Those of `sources` that are local paths: what a rule must list as input."""
    given = [source for source in sources if source is not None]
    return [source for source in given if parse_hub(source) is None and parse_url(source) is None]


def members(source):
    """Paths (list of str) of all files of a local model directory; its own if it is not there.

    Raises InputError for a name with a brace, which Snakemake would fill in.
    """
    found = [
        str(path)
        for directory in map(Path, local_files(source))
        for path in sorted(directory.rglob("*")) or [directory]
        if not path.is_dir()
    ]
    for path in found:
        if set("{}") & set(path):
            raise InputError(f"{path}: has a brace in its name; rename the file, or remove it from the model")
    return found


def read_rows(source, columns):
    """Yield (where, row) for every row: `where` names the place for messages, `row` maps field to value.

    Raises InputError for a missing file, a malformed line (with its number) or a missing column.
    """
    rows = _hub_rows(source) if parse_hub(source) else _file_rows(Path(source))
    for where, record in rows:
        row = {}
        for field, column in columns.items():
            if column is None:
                continue
            if column not in record:
                raise InputError(
                    f"{where}: no column {column!r}, only {sorted(record)}; set it under `columns`"
                )
            row[field] = record[column]
        yield where, row


def _file_rows(path):
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    readers = {".jsonl": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    if path.suffix not in readers:
        raise InputError(f"{path}: data files end in {', '.join(readers)}")
    return readers[path.suffix](path)


def _jsonl_rows(path):
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None
            if not isinstance(record, dict):
                raise InputError(f"{where}: a JSON object is needed, not {type(record).__name__}")
            yield where, record


def _csv_rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for record in reader:
            where = f"{path}, line {reader.line_num}"
            if None in record or None in record.values():
                raise InputError(f"{where}: has not as many fields as the header")
            yield where, record


def _parquet_rows(path):
    import pyarrow.parquet as pq

    number = 0
    for batch in pq.ParquetFile(path).iter_batches():
        for record in batch.to_pylist():
            yield f"{path}, row {number}", record
            number += 1


def _hub_rows(source):
    import datasets
    from huggingface_hub import errors

    name, _, split = parse_hub(source)
    config, _, split = split.rpartition("/")
    revision = commit_of(source)
    print(f"{source}: commit {revision}")
    try:
        rows = datasets.load_dataset(name, config or None, revision=revision, split=split)
    except (errors.HfHubHTTPError, datasets.exceptions.DatasetsError, ConnectionError) as error:
        raise unreachable(source, error) from error
    for number, record in enumerate(rows):
        yield f"{source}, row {number}", record

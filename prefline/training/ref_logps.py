"""Reference log-probabilities with their origin: written into their file, compared with the training's.

Numbers of another reference, of other completions of the same prompts, or at another temperature would train
without a complaint, to something else. So each part's parquet file holds, as metadata, the sha256 of the ids
it was computed for and of the reference's weights, and the temperature; `joined` compares them.
"""

import functools
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from prefline.data import tables
from prefline.errors import InputError
from prefline.training import process

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
MAPPED = "tokenized.arrow"  # all pairs of a training, which its processes map into their memory


def origin(column, contents, temperature):
    """Return the origin of log-probabilities (dict of JSON values), for their file's metadata.

    column: function of a name of IDS that returns the column's chunks (iterable of ListArray) of the file's
    rows; contents: {file: sha256} of the reference, as its manifest has it, of which the weights and their
    config count; temperature: float.
    """
    return {
        "ids": ids_hash(column),
        "reference": reference_hash(contents),
        "temperature": float(temperature),
    }


def ids_hash(column):
    """Return the sha256 (hexadecimal str) of all ids and of the sequences' ends; column: as in `origin`."""
    digest = hashlib.sha256()
    for name in IDS:
        for numbers_of in (pc.list_value_length, pc.list_flatten):
            for chunk in column(name):
                numbers = numbers_of(chunk).cast(pa.int32()).to_numpy(zero_copy_only=False)
                digest.update(numbers.astype("<i4", copy=False))
    return digest.hexdigest()


def reference_hash(contents):
    """Return the sha256 (hexadecimal str) of a model's weights and config; contents: {file: sha256}."""
    counting = {
        name: sha for name, sha in contents.items() if "/" not in name and name.endswith(".safetensors")
    }
    counting["config.json"] = contents.get("config.json")
    return hashlib.sha256(json.dumps(counting, sort_keys=True).encode()).hexdigest()


def check_ids(pairs, vocabulary, where, first_row=0):
    """Raise InputError for an empty sequence or an id that a model of `vocabulary` (int) tokens lacks.

    pairs: Table with prompt_id and the columns IDS; where: str, the file; first_row: number there of the
    Table's first row.
    """
    for name in IDS:
        start = 0
        for column in pairs[name].chunks:
            lengths = pc.list_value_length(column)
            if len(column) and pc.min(lengths).as_py() == 0:
                row = start + pc.index(lengths, 0).as_py()
                raise InputError(
                    f"{_place(pairs, where, first_row, row)}: {name} is empty; take this pair out of the "
                    "preferences, and have tokenize_preferences make the file again"
                )
            ids = pc.list_flatten(column)
            outside = pc.or_(pc.less(ids, 0), pc.greater_equal(ids, vocabulary))
            if pc.any(outside, min_count=0).as_py():
                first = pc.index(outside, True)
                row = start + pc.list_parent_indices(column)[first.as_py()].as_py()
                raise InputError(
                    f"{_place(pairs, where, first_row, row)}: {name} holds the id {ids[first.as_py()]}, but "
                    f"the model's vocabulary has {vocabulary} tokens; the pairs must be tokenized with this "
                    "model's tokenizer, which the policy and its reference share"
                )
            start += len(column)


def joined(tokenized_paths, ref_logps_paths, contents, temperature, vocabulary, folder):
    """Return all pairs with their log-probabilities (Table); InputError if the two do not match.

    tokenized_paths: one file for each policy; ref_logps_paths: all parts of the first, of the second, …;
    contents: {file: sha256} of the reference that the training names, as its manifest has it; temperature:
    float, the training's; vocabulary: int, tokens of its model; folder: where the pairs are written, for all
    processes of a training to map. The first one writes and checks them: the others call this afterwards.
    """
    path = Path(folder) / MAPPED
    if process.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        tables.write_arrow(path, _checked(tokenized_paths, vocabulary), tables.TOKENIZED)
    elif not path.exists():
        raise InputError(f"{path}: the first process has not written it; its own message has the reason")
    tokenized = tables.map_arrow(path)
    parts = [tables.read(each, tables.REF_LOGPS) for each in ref_logps_paths]
    logps = pa.concat_tables([part.replace_schema_metadata() for part in parts])
    if process.is_main():
        _check_rows(tokenized, logps)
        start = 0
        for each, part in zip(ref_logps_paths, parts, strict=True):
            column = functools.partial(_column, tokenized_paths, start, len(part))
            _check_origin(each, tables.metadata(part.schema), origin(column, contents, temperature))
            start += len(part)
    for name in ("ref_chosen_logps", "ref_rejected_logps"):
        tokenized = tokenized.append_column(name, logps[name])
    return tokenized


def _checked(paths, vocabulary):
    """Yield the rows of tokenized files (Tables), each after `check_ids`."""
    for path in paths:
        first = 0
        for pairs in tables.batches(path, tables.TOKENIZED, tables.ROWS_AT_ONCE):
            check_ids(pairs, vocabulary, path, first)
            first += len(pairs)
            yield pairs


def _column(paths, first, number, name):
    """Yield a column (ListArrays) of the rows first … first + number - 1 of all tokenized files.

    It is read from them, since a mapped page counts as this process's memory once it was read.
    """
    for path in paths:
        with tables.opened(path, tables.TOKENIZED) as file:
            rows = file.metadata.num_rows
        begin, end = max(first, 0), min(first + number, rows)
        if begin < end:
            yield from tables.read_column(path, tables.TOKENIZED, name, begin, end - begin)
        first -= rows


def _check_rows(tokenized, logps):
    """Raise InputError that names the first row whose prompt or token counts are not the same in both."""
    if len(tokenized) != len(logps):
        raise InputError(
            f"--tokenized has {len(tokenized)} rows, --ref-logps {len(logps)}: they do not belong "
            "together; name all parts of the same policies in the same order, or make ref_logps again"
        )
    agree = pc.equal(tokenized["prompt_id"], logps["prompt_id"])
    for side in ("chosen", "rejected"):
        lengths = pc.list_value_length(tokenized[f"{side}_ids"])
        agree = pc.and_(agree, pc.equal(lengths, logps[f"{side}_tokens"]))
    if not pc.all(agree, min_count=0).as_py():
        row = pc.index(agree, False).as_py()
        ours, theirs = tokenized["prompt_id"][row], logps["prompt_id"][row]
        raise InputError(
            f"row {row} is prompt_id {ours} in --tokenized and {theirs} in --ref-logps, or its token counts "
            "differ; name the files of the same policies in the same order, or make ref_logps again"
        )


def _check_origin(path, found, wanted):
    """Raise InputError if the log-probabilities in `path`, `found`, are not those `wanted` (origins)."""
    again = "delete the file and let compute_ref_logps make it again"
    if found is None:
        raise InputError(f"{path} does not say what its log-probabilities are of; {again}")
    if found["ids"] != wanted["ids"]:
        raise InputError(
            f"{path} holds log-probabilities of other ids than --tokenized has in its rows (sha256 "
            f"{found['ids'][:12]}, not {wanted['ids'][:12]}); name the file that they were computed from, or "
            f"{again}"
        )
    if found["reference"] != wanted["reference"]:
        raise InputError(
            f"{path} holds log-probabilities under another model than --reference (sha256 of weights and "
            f"config {found['reference'][:12]}, not {wanted['reference'][:12]}); name the reference that "
            f"they were computed with, or {again}"
        )
    if found["temperature"] != wanted["temperature"]:
        raise InputError(
            f"{path} holds log-probabilities at temperature {found['temperature']:g}, but training is at "
            f"{wanted['temperature']:g}; give both the same, as logps.temperature does, or {again}"
        )


def _place(pairs, where, first_row, row):
    return f"{where}, row {first_row + row}, prompt_id {pairs['prompt_id'][row]}"

"""Read data from its sources: files, folders, patterns of files, or a hub dataset pinned by revision.

A source is a path, or `hub:ID@COMMIT` for a model, `hub:ID@COMMIT#SPLIT` for a dataset (`#CONFIG/SPLIT` if
it has several configs), or `https://ADDRESS#sha256=HEX` for a file that a rule fetches. A path of data may
be a folder or a pattern such as `data/*.jsonl`. In a list of sources, each is one of these or {"source",
"weight", "columns"}.
"""

import glob
import itertools
import re
from pathlib import Path

from prefline import files, unicode
from prefline import paths as paths_typed
from prefline.data import containers
from prefline.data.counts import Odd
from prefline.errors import InputError

# Files of a folder that are not data.
BESIDE = {"dataset_info.json", "state.json", "dataset_infos.json", "dataset_dict.json"}
# Names of splits, as whole words of a file's or folder's name.
SPLITS = "train|training|test|testing|val|valid|validation|dev|eval|evaluation|held[_-]?out"
SPLIT_NAME = re.compile(rf"(?<![a-z])({SPLITS})(?![a-z])")


def parse_hub(source):
    """Return (id, revision, split or None) of a hub source; None for a local path."""
    match = re.fullmatch(r"hub:([^@#]+)@([^@#]+)(?:#(.+))?", source)
    return match.groups() if match else None


def parse_url(source):
    """Return (address, sha256) of a file that is fetched; None for any other source."""
    match = re.fullmatch(r"(https?://[^#]+)#sha256=([0-9a-f]{64})", source)
    return match.groups() if match else None


def is_commit(revision):
    """Return whether a hub revision is a commit, which never changes, and not a branch or tag."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def commit_of(source):
    """Return the commit (40 hexadecimal digits) of a hub source: its own, or its branch's newest.

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
    """Return a source, or a list of sources, with the current commit instead of a branch of the hub.

    Raises InputError as commit_of does.
    """
    if isinstance(source, list):
        return [pinned(one) for one in source]
    if isinstance(source, dict):
        return {**source, "source": pinned(source["source"])}
    if source is None or parse_hub(source) is None:
        return source
    return source.replace(f"@{parse_hub(source)[1]}", f"@{commit_of(source)}", 1)


def unreachable(source, error):
    """Return the InputError for a hub source that cannot be read because of `error` (Exception)."""
    name = parse_hub(source)[0]
    return InputError(
        f"{source} cannot be downloaded ({type(error).__name__}); check the name, the revision and the "
        f"network; if https://huggingface.co/{name} asks for your consent to a licence, give it there and "
        "set HF_TOKEN in the environment"
    )


def local_files(*sources):
    """Return those of `sources` that are local paths: what a rule must list as input."""
    given = [source for source in sources if source is not None]
    return [source for source in given if parse_hub(source) is None and parse_url(source) is None]


def listed(sources):
    """Return data sources of the config as a list of {"source", "weight" or None, "columns" or None}.

    sources: str, dict with the key "source", or a list of them.
    """
    given = sources if isinstance(sources, list) else [sources]
    given = [{"source": one} if isinstance(one, str) else one for one in given]
    return [{"weight": None, "columns": None, **one} for one in given]


def data_files(*sources):
    """Return the local files (list of str) of data sources, each as `listed` takes it: a rule's inputs."""
    names = [one["source"] for given in sources if given is not None for one in listed(given)]
    return [str(path) for name in local_files(*names) for path in paths(name)]


def paths(source):
    """Return the files (list of Path) of a local source of data, in order; a missing file is one of them."""
    if glob.has_magic(source) and not Path(source).exists():
        found = sorted(Path(path) for path in glob.glob(source, recursive=True) if Path(path).is_file())
        return _without_caches(found)
    if not Path(source).is_dir():
        return [Path(source)]
    found = [path for path in sorted(Path(source).rglob("*")) if path.is_file() and _is_data(path)]
    return _without_caches([path for path in found if not _hidden(path.relative_to(source))])


def _without_caches(found):
    """Return `found` (list of Path) without what a state.json of datasets.save_to_disk does not list."""
    listed = {folder: _saved(folder) for folder in {path.parent for path in found}}
    return [
        path for path in found if listed[path.parent] is None or path.name in listed[path.parent] | BESIDE
    ]


def _saved(folder):
    try:
        return {file["filename"] for file in files.read_json(folder / "state.json")["_data_files"]}
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return None


def _hidden(path):
    return any(part.startswith((".", "_")) for part in path.parts)


def _is_data(path):
    try:
        containers.kind_of(path)
    except InputError:
        return False
    return path.name not in BESIDE and path.stem.lower() not in ("readme", "license", "requirements")


def mistake(source):
    """Return what is wrong (str) with the files of a local source of data, None if nothing is."""
    try:
        found = paths(source)
    except OSError as error:  # a name that is too long, a folder that others may not look into
        return f"{source:.100}: {error.strerror}; name files that can be read"
    if not found:
        return f"{source}: holds no data file (seen from {Path.cwd()}); correct the path"
    if found == [Path(source)] and (missing := paths_typed.mistake(source, "file", "hub:ID@COMMIT#SPLIT")):
        return missing
    try:
        kinds = {containers.kind_of(path) for path in found}
    except InputError as error:
        return str(error)
    if wrong := next(filter(None, map(paths_typed.odd_name, found)), None):
        return wrong
    if wrong := next(filter(None, map(paths_typed.unreadable, found)), None):
        return wrong
    if len(kinds) > 1:
        return f"{source}: holds files of several kinds ({', '.join(sorted(kinds))}); name those of one"
    if found != [Path(source)]:
        base = source if Path(source).is_dir() else _constant_folder(source)
        inside = [str(path.relative_to(base)).lower() for path in found]
        splits = {match[1] for name in inside if (match := SPLIT_NAME.search(name))}
        if len(splits) > 1:
            names = ", ".join(sorted(splits))
            return f"{source}: holds several splits ({names}); name the folder or a pattern of one"
    return None


def _constant_folder(pattern):
    """Return the folder (Path) that a pattern of files names before its first wildcard."""
    parts = itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts)
    return Path(*parts)


def keeps_columns_apart(source):
    """Return whether `records` of a source reads only the columns that it is asked for."""
    return bool(local_files(source)) and all(containers.kind_of(path) == ".parquet" for path in paths(source))


def records(source, columns=None):
    """Yield (where, row) for every row (dict, or Odd) of a source, local or on the hub.

    columns: names of the columns to read if files store them separately; None for all. Raises InputError.
    """
    if parse_hub(source):
        yield from _hub_rows(source)
        return
    if wrong := mistake(source):
        raise InputError(wrong)
    for path in paths(source):
        yield from containers.records(path, columns)


def members(source):
    """Return the paths (list of str) of all files of a local model directory; its own path if it is missing.

    Raises InputError for a name that Snakemake cannot take.
    """
    found = [
        str(path)
        for directory in map(Path, local_files(source))
        for path in sorted(directory.rglob("*")) or [directory]
        if not path.is_dir()
    ]
    if wrong := next(filter(None, map(paths_typed.odd_name, found)), None):
        raise InputError(f"{wrong}, or remove it from the model")
    return found


def read_rows(source, columns):
    """Yield (where, row) for every row: `where` names the place for messages, `row` maps field to value.

    For data that must be whole: raises InputError for a missing file, a malformed row or a missing column.
    """
    for where, record in records(source):
        if isinstance(record, Odd):
            raise InputError(f"{where}: {record}")
        row = {}
        for field, column in columns.items():
            if column is None:
                continue
            if column not in record:
                raise InputError(
                    f"{where}: no column {column!r}, only {sorted(record)}; set it under `columns`"
                )
            if not unicode.is_valid(record[column]):
                raise InputError(f"{where}: {column!r} {unicode.FAULT}; {unicode.ADVICE}")
            row[field] = record[column]
        yield where, row


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
    except ValueError as error:  # a split or configuration that the dataset lacks
        said = " ".join(str(error).split())
        raise InputError(f"{source}: {said:.300}; correct the part after the #") from None
    number = -1
    try:
        for number, record in enumerate(rows):
            yield f"{source}, row {number}", record
    except UnicodeDecodeError:  # after which the library gives no more rows
        raise InputError(
            f"{source}, row {number + 1}: {unicode.FAULT}; take another revision, or name a file without it"
        ) from None

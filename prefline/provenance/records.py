"""What made each file under results/: kept beside it in results/records/, so that it travels with the file.

Snakemake decides by its own metadata and by times of files. Neither survives a clone or a checkout: then it
either runs everything again, or nothing although the data is another. `sync` puts that right before Snakemake
looks, by contents:

- Metadata of jobs that ran here becomes records; records that came from elsewhere (`dvc pull`, `dvc
  checkout`) become metadata.
- An output whose inputs are what it was made from is made to look newer than they do, any other one older.
- A file that is not what its record says was changed by hand: that is an error, before anything is done.

Data that the workflow does not make needs no times: rules take it as `ancient` and its hash as a param.
"""

import base64
import json
import os
import shutil
import time
from pathlib import Path

import yaml

from prefline import files
from prefline.errors import InputError
from prefline.provenance import environments, manifest

RESULTS = Path("results")
RECORDS = RESULTS / "records"
METADATA = Path(".snakemake/metadata")
INCOMPLETE = Path(".snakemake/incomplete")
SEEN = Path(".snakemake/prefline_seen.json")
# What Snakemake compares when it decides whether to run a job again.
COMPARED = (
    "rule",
    "input",
    "log",
    "shellcmd",
    "params",
    "code",
    "record_format_version",
    "software_stack_hash",
)


def path_of(output):
    """Where the record of the output `output` (str) stands."""
    return RECORDS / Path(output).relative_to(RESULTS).with_name(f"{Path(output).name}.json")


def read(output):
    """The record (dict) of an output, None if there is none.

    sha256: of the output; inputs: {path: sha256} of the files under results/ it was made from, data: of those
    elsewhere, None for one that was changed while the job ran; seconds: how long the job took; packages:
    versions of what its environment names; snakemake: what Snakemake compares.
    """
    path = path_of(output)
    return files.read_json(path) if path.is_file() else None


def origin(output):
    """(rule, inputs) of the job that made `output`, inputs a list of paths; None if no job did.

    Of Snakemake's metadata, which is there as soon as a job is done, or of the record.
    """
    if not Path(output).is_relative_to(RESULTS):
        return None
    path = _metadata_path(output)
    made = json.loads(path.read_text()) if path.is_file() else (read(output) or {}).get("snakemake")
    return (made["rule"], made["input"]) if made else None


def sync(hashes, conda_prefix, images):
    """Make records, Snakemake's metadata and the times of files agree with what the files hold.

    hashes: Hashes; conda_prefix, images: as `environments.here` takes them. Raises InputError that names the
    files under results/ which their records do not describe.
    """
    seen = _read_seen()
    records, wrong = {}, []
    stacks = environments.here(conda_prefix, images)
    ran = dict(_entries(METADATA))
    unfinished = {output for output, _ in _entries(INCOMPLETE)}
    for output in sorted(ran.keys() | dict(_record_files()).keys()):
        if output in unfinished or not Path(output).exists():
            continue
        record = _settle(output, ran.get(output), seen, hashes, stacks)
        if record is None:
            continue
        if record["sha256"] == hashes.of(output):
            records[output] = record
        else:
            wrong.append(output)
    times, now = {}, time.time_ns()
    for output in records:
        _set_time(output, records, hashes, times, now)
    files.write_json(SEEN, seen)
    hashes.save()
    if wrong:
        raise InputError(
            f"{', '.join(wrong[:5])}{f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''}: changed since "
            "the workflow made it; delete it to have it made again, or keep your version under another name "
            "outside results/"
        )


def check_known(paths, is_output):
    """Raise InputError for the first of `paths` that the workflow makes but that nothing says it made.

    is_output: a function that tells whether a path (str) is the output of some rule.
    """
    known = {output for output, _ in (*_entries(METADATA), *_entries(INCOMPLETE), *_record_files())}
    for path in paths:
        if path not in known and is_output(path):
            raise InputError(
                f"{path}: nothing says what it was made from ({path_of(path)} is missing); delete it to have "
                "it made again, or get it together with its record (dvc pull)"
            )


def _settle(output, metadata_file, seen, hashes, stacks):
    """The record of an output, after Snakemake's metadata and the record have been made to agree."""
    record_file = path_of(output)
    looks = [_look(metadata_file), _look(record_file)]
    if looks == seen.get(output):
        return files.read_json(record_file)
    before = seen.get(output) or [None, None]
    record = files.read_json(record_file) if looks[1] else None
    made = json.loads(Path(metadata_file).read_text()) if looks[0] else {}
    # Snakemake notes the environment, `_write_metadata` does not.
    ran_here = looks[0] != before[0] and "conda_env" in made
    true = record is not None and record["sha256"] == hashes.of(output)
    if ran_here and not (looks[1] != before[1] and true):
        record = _record(output, made, hashes)
        files.write_json(record_file, record)
    elif true:
        _write_metadata(output, record, stacks)
    else:  # Snakemake is told nothing: its metadata would later look as if the job had run here
        return record
    seen[output] = [_look(_metadata_path(output)), _look(record_file)]
    return record


def _record(output, made, hashes):
    """The record of an output that Snakemake says was `made` just so (its metadata, dict)."""
    inputs, data = {}, {}
    for path in made["input"]:
        if not Path(path).is_dir():
            # An input written after the job began is not the one that it read.
            same = Path(path).exists() and os.stat(path).st_mtime <= made["starttime"]
            kind = inputs if Path(path).is_relative_to(RESULTS) else data
            kind[path] = hashes.of(path) if same else None
    _trust_manifest(output, hashes)
    return {
        "sha256": hashes.of(output),
        "inputs": inputs,
        "data": data,
        "seconds": round(made["endtime"] - made["starttime"], 3),
        "packages": _packages(made),
        "snakemake": {
            **{key: made[key] for key in COMPARED},
            "software_stack_hash": environments.portable(made),
        },
    }


def _trust_manifest(output, hashes):
    """Take over from the manifest of a model directory what its files hold: the job has just read them."""
    described = manifest.path_of(output)
    if not Path(output).is_dir() or not described.is_file():
        return
    for name, sha in files.read_json(described)["files"].items():
        member = Path(output, name)
        if member.is_file() and os.stat(member).st_mtime <= os.stat(described).st_mtime:
            hashes.put(member, sha)


def _packages(made):
    """{package: version} of what shapes numbers, in the environment that a job ran in."""
    if not made["conda_env"]:
        return {}
    pins = {}
    for entry in yaml.safe_load(environments.text_of(made))["dependencies"]:
        for requirement in entry["pip"] if isinstance(entry, dict) else [entry]:
            name, _, version = requirement.partition("=")
            pins[name] = version.lstrip("=")
    used = [name for name in (*manifest.PACKAGES, "numpy", "vllm") if name in pins]
    deployed = made["software_stack_hash"] != environments.NONE
    return {name: pins[name] if deployed else manifest.version(name) for name in used}


def _set_time(output, records, hashes, times, now):
    """Make `output` look newer than its inputs, or older if one is not what it was made from.

    Nothing is newer than `now` (ns): after a clock was set back, Snakemake would refuse what it makes of it.
    times: {output: time in ns, as an input}, of those done. Returns times[output].
    """
    if output in times:
        return times[output]
    if _time(output, False) > now:
        _put_time(output, now, hashes)
    present = {}
    for path, sha in records[output]["inputs"].items():
        if Path(path).exists():
            seen = _set_time(path, records, hashes, times, now) if path in records else _time(path, True)
            present[path] = min(seen, now), sha == hashes.of(path)
    changed = [seen for seen, same in present.values() if not same]
    if changed:
        if _time(output, False) >= min(changed):
            _put_time(output, min(changed) - 10**9, hashes)
    elif present:
        newest = max(seen for seen, _ in present.values())
        # Snakemake counts a job's benchmark file among its outputs; it lies beside the log.
        logs = [Path(path) for path in records[output]["snakemake"]["log"]]
        for path in [Path(output), *(log.with_suffix(".tsv") for log in logs)]:
            if path.exists() and _time(path, False) < newest:
                _put_time(path, newest, hashes)
    times[output] = _time(output, True)
    return times[output]


def _time(path, as_input):
    """Time in ns of a file or directory as Snakemake sees it: of an input that is a link, the later one."""
    stamp = Path(path, ".snakemake_timestamp")
    path = stamp if stamp.is_file() else path
    own = os.stat(path, follow_symlinks=False).st_mtime_ns
    return max(own, os.stat(path).st_mtime_ns) if as_input else own


def _put_time(path, time, hashes):
    sha = hashes.of(path) if Path(path).is_file() else None  # before its looks change
    stamp = Path(path, ".snakemake_timestamp")
    stamp = stamp if stamp.is_file() else Path(path)
    try:
        os.utime(stamp, ns=(time, time), follow_symlinks=False)
    except PermissionError:  # a hard link to somebody else's file in a shared cache
        with files.atomic(stamp) as copy:
            shutil.copyfile(stamp, copy)
            os.utime(copy, ns=(time, time))
    if sha:
        hashes.put(path, sha)


def _write_metadata(output, record, stacks):
    """Tell Snakemake what a record says. stacks: as environments.here gives it."""
    path = _metadata_path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    INCOMPLETE.mkdir(parents=True, exist_ok=True)  # without this folder, Snakemake takes METADATA for old
    end = os.stat(output).st_mtime
    made = {**record["snakemake"], "starttime": end - record["seconds"], "endtime": end, "incomplete": False}
    made["software_stack_hash"] = stacks.get(made["software_stack_hash"], made["software_stack_hash"])
    files.write_json(path, made)


def _metadata_path(output):
    """Where Snakemake keeps its metadata of an output: base64 of the path, cut into names short enough."""
    name = base64.urlsafe_b64encode(str(output).encode()).decode()
    parts = [name[start : start + 254] for start in range(0, len(name), 254)]
    return METADATA.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def _entries(folder):
    """(output, file) for everything of Snakemake's about outputs under results/ in one of its folders."""
    found = []
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory, name)
            encoded = "".join(part.removeprefix("@") for part in path.relative_to(folder).parts)
            output = base64.urlsafe_b64decode(encoded).decode()
            if Path(output).is_relative_to(RESULTS):
                found.append((output, path))
    return found


def _record_files():
    """(output, file) for every record."""
    found = []
    for directory, _, names in os.walk(RECORDS):
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                path = Path(directory, name)
                output = RESULTS / path.relative_to(RECORDS).with_name(name.removesuffix(".json"))
                found.append((str(output), path))
    return found


def _look(path):
    """What tells a file from a newer one (list), None if there is none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, TypeError):
        return None
    return [status.st_mtime_ns, status.st_size]


def _read_seen():
    try:
        return files.read_json(SEEN)
    except (OSError, ValueError):
        return {}

"""Record what made each file under results/, in results/records/, so that records travel with the files.

Snakemake decides by its own metadata and by the times of files. Neither survives a clone or a checkout:
then it runs everything again, or nothing although the data differ. Before Snakemake decides, `sync`
corrects both by contents:

- Metadata of jobs that ran here becomes records. Records that came from elsewhere (`dvc pull`, `dvc
  checkout`) become metadata. Records that were lost since are written again.
- An output gets a time after its inputs if it was made from them, and a time before them otherwise.
- A file that does not match its record was changed by hand. That is an error before any job starts.

Data that the workflow does not make needs no times: rules take it as `ancient` and its hash as a param.
"""

import contextlib
import os
import shlex
import shutil
import time
from collections import Counter
from pathlib import Path

import yaml

from prefline import files
from prefline.errors import InputError
from prefline.provenance import environments, manifest, metadata, plan
from prefline.provenance import hashes as hashing
from prefline.provenance.metadata import RESULTS

RECORDS = RESULTS / "records"
# Trials of servers: they are repeated after edits that change no result, such as a price.
TRIALS = RESULTS / "checks/endpoints"
SEEN = Path(".snakemake/prefline_seen.json")
# Keys of each record.
KEYS = {"sha256", "inputs", "data", "seconds", "packages", "snakemake"}


def path_of(output):
    """Return the path of the record of the output `output` (str)."""
    return RECORDS / Path(output).relative_to(RESULTS).with_name(f"{Path(output).name}.json")


def output_of(record):
    """Return the output (Path) of a record (Path)."""
    return RESULTS / record.relative_to(RECORDS).with_name(record.name.removesuffix(".json"))


def read(output):
    """Return the record (dict) of an output, None if there is none.

    sha256: of the output; inputs: {path: sha256} of its inputs under results/; data: the same of its other
    inputs, None for one that changed while the job ran; seconds: duration of the job; packages: {name:
    version} in its environment; snakemake: the values that Snakemake compares. With the key `touched`, no job
    made the output from these: `snakemake --touch` declared that it is up to date.
    """
    return _read(path_of(output))


def _read(path):
    """Return the record (dict) in a file; None if it has none, with one warning."""
    try:
        record = files.read_json(path)
        if _is_record(record):
            return record
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        pass
    metadata.name_once(path, "is not a record of a result, and counts as missing; delete it")
    return None


def _is_record(found):
    try:
        return (
            found.keys() >= KEYS
            and found["snakemake"].keys() >= set(metadata.COMPARED)
            and isinstance(found["seconds"], (int, float))
            and all(isinstance(found[key], dict) for key in ("inputs", "data", "packages"))
            and all(isinstance(found["snakemake"][key], list) for key in ("input", "log", "params"))
        )
    except (AttributeError, TypeError):
        return False


def origin(output):
    """Return (rule, inputs) of the job that made `output`, inputs a list of paths; None if no job did.

    Reads Snakemake's metadata, which exists as soon as a job is done, or else the record.
    """
    if not Path(output).is_relative_to(RESULTS):
        return None
    made = metadata.of(output) or (read(output) or {}).get("snakemake")
    return (made["rule"], made["input"]) if made else None


def sync(hashes, conda_prefix, images):
    """Make records, Snakemake's metadata and the times of files agree with the contents of files.

    hashes: Hashes; conda_prefix, images: as `environments.here` takes them. Raises InputError that names
    the files under results/ that differ from their records.
    """
    seen = _read_seen()
    records, wrong = {}, []
    stacks = environments.here(conda_prefix, images)
    ran = _metadata_files(seen)
    unfinished = dict(metadata.entries(metadata.INCOMPLETE))
    metadata.repair_markers(unfinished.values())
    planned = plan.read() or {"started": None, "packages": manifest.packages(manifest.NUMERIC)}
    now = time.time_ns()
    for output in sorted(ran.keys() | dict(_record_files()).keys() | seen.keys()):
        if not Path(output).exists() and (record := _read(path_of(output))):
            for path in _benchmarks(record):  # or it would be the oldest output of a job that need not run
                _put_time(path, now, hashes)
        if output in unfinished or not Path(output).exists():
            continue
        record = _settle(output, ran.get(output), seen, hashes, stacks, planned)
        if record is None:
            continue
        if record["sha256"] == hashes.of(output):
            records[output] = record
        else:
            wrong.append(output)
    times = {}
    for output in records:
        _set_time(output, records, hashes, times, now)
    files.write_json(SEEN, seen)
    hashes.save()
    if wrong:
        raise InputError(
            f"changed since the workflow made them: {', '.join(wrong)}; keep your versions under other names "
            f"outside results/, if you want them, and {_command(wrong)}"
        )
    return records


def other_versions(records):
    """Return a sentence (str) on packages of other versions than those that made results; "" for none.

    records: as `sync` returns them. Under `--sdm conda` Snakemake compares the environments itself.
    """
    found = Counter()
    for output in records:
        found.update(differing(records[output]))
    named = ", ".join(
        f"{name} {then} made {count} files under {RESULTS}/, and {now or 'none'} is installed now"
        for (name, then, now), count in sorted(found.items(), key=str)
    )
    return f"other versions may give other numbers: {named}; --forceall makes all with one" if named else ""


def differing(record):
    """Return [(package, version that made a result, version installed now)] where these differ."""
    if record["snakemake"]["software_stack_hash"] != environments.NONE:
        return []
    now = manifest.packages(record["packages"])
    return [(name, then, now[name]) for name, then in record["packages"].items() if then != now[name]]


def _command(outputs):
    """Return the command that has damaged outputs made again, as the end of a sentence."""
    names = shlex.join(outputs)
    return f"have them made again by: rm -r {names} && snakemake {names}"


def check_known(paths, is_output):
    """Raise InputError for those of `paths` that the workflow makes and that have no record.

    is_output: a function that tells whether a path (str) is the output of some rule.
    """
    folders = (metadata.METADATA, metadata.INCOMPLETE)
    known = {output for folder in folders for output, _ in metadata.entries(folder)}
    known |= {output for output, file in _record_files() if output not in known and _read(file)}
    unknown = sorted(path for path in paths if path not in known and is_output(path))
    if unknown:
        raise InputError(
            f"without a record under {RECORDS}/, so that their inputs are unknown: {', '.join(unknown)}; get "
            f"them together with their records (dvc pull), or {_command(unknown)}"
        )


def _metadata_files(seen):
    """Return {output: file} of Snakemake's metadata; delete what Snakemake could not read."""
    found = {}
    for output, path in metadata.entries(metadata.METADATA):
        if _look(path) == seen.get(output, [None])[0] or metadata.read(path):
            found[output] = path
        else:
            path.unlink(missing_ok=True)
    return found


def _settle(output, metadata_file, seen, hashes, stacks, planned):
    """Make Snakemake's metadata and the record of an output agree, and return the record."""
    record_file = path_of(output)
    looks = [_look(metadata_file), _look(record_file)]
    record = _read(record_file)
    before = seen.get(output, [None, None, None])
    if record is not None and looks == before[:2]:
        return record
    made = metadata.read(metadata_file) or {}
    # Snakemake notes the environment, `metadata.write` does not. In a copied project the files look new, but
    # the record of the same job is there.
    ran_here = looks[0] != before[0] and "conda_env" in made
    ran_here = ran_here and not (record is not None and record["seconds"] == _seconds(made))
    if record is None and not ran_here and before[2]:  # the record was lost since
        record = before[2]
        files.write_json(record_file, record)
    true = record is not None and record["sha256"] == hashes.of(output)
    if ran_here and not (looks[1] != before[1] and true):
        new = _record(output, made, hashes, planned)
        kept = true and _tells_as_much(record, new)
        if not kept:
            record = new
            files.write_json(record_file, record)
        if kept or _unknown(record):
            metadata.write(output, record["snakemake"], record["seconds"], stacks)
    elif true:
        metadata.write(output, record["snakemake"], record["seconds"], stacks)
    else:  # no metadata for Snakemake: it would later seem that the job had run here
        return record
    seen[output] = [_look(metadata.path_of(output)), _look(record_file), record]
    return record


def _record(output, made, hashes, planned):
    """Return the record of an output from Snakemake's metadata `made` (dict).

    planned: of the job's plan (plan.py): `packages`, and `started`, None if that is unknown.
    """
    inputs, data = {}, {}
    for path in made["input"]:
        if Path(path).is_dir() or Path(path).is_relative_to(TRIALS):
            continue
        if Path(path).is_relative_to(RESULTS):
            # An input that was written after the job began is not the one that the job read.
            inputs[path] = hashes.of(path) if hashing.is_older(path, made["starttime"]) else None
        else:  # the job's params have the hash of the data from when it was planned
            since = planned["started"] or made["starttime"]
            same = hashing.is_older(path, since) and hashing.links_are_older(path, since)
            data[path] = hashes.of(path) if same else None
    _trust_manifest(output, hashes)
    record = {
        "sha256": hashes.of(output),
        "inputs": inputs,
        "data": data,
        "seconds": _seconds(made),
        "packages": _packages(made, planned["packages"]),
        "snakemake": {
            **{key: made[key] for key in metadata.COMPARED},
            "software_stack_hash": environments.portable(made),
        },
    }
    # Snakemake compares params: no job has these, so that it runs again.
    record["snakemake"]["params"] += [repr(f"changed while it was read: {path}") for path in _unknown(record)]
    return record | ({"touched": True} if made.get(metadata.MARK) == metadata.TOUCHED else {})


def _seconds(made):
    """Return the duration of a job, by its metadata, with digits enough to tell it from another job."""
    return round(made["endtime"] - made["starttime"], 6)


def _unknown(record):
    """Return the data (list of paths) that changed between a job's plan and its end."""
    return [path for path, sha in record["data"].items() if sha is None]


def _tells_as_much(record, new):
    """Return whether a record tells of the same work as a new one of the same output.

    A job that made an unchanged output once more thus changes no file that DVC tracks.
    """
    same = all(record[key] == new[key] for key in ("inputs", "data", "snakemake"))
    return same and ("touched" in new or ("touched" not in record and record["packages"] == new["packages"]))


def _trust_manifest(output, hashes):
    """Add a model directory's hashes from its manifest to `hashes`, since the job just read the files."""
    described = manifest.path_of(output)
    if not Path(output).is_dir() or not described.is_file():
        return
    with contextlib.suppress(ValueError, KeyError, AttributeError):
        for name, sha in files.read_json(described)["files"].items():
            member = Path(output, name)
            if member.is_file() and hashing.is_older(member, os.stat(described).st_ctime):
                hashes.put(member, sha)


def _packages(made, versions):
    """Return {package: version} of the packages that change numbers, in the environment of a job.

    versions: the same for all that were installed when the job was planned.
    """
    if not made["conda_env"]:
        return {}
    pins = {}
    for entry in yaml.safe_load(environments.text_of(made))["dependencies"]:
        for requirement in entry["pip"] if isinstance(entry, dict) else [entry]:
            name, _, version = requirement.partition("=")
            pins[name] = version.lstrip("=")
    used = [name for name in manifest.NUMERIC if name in pins]
    deployed = made["software_stack_hash"] != environments.NONE
    return {name: pins[name] if deployed else versions[name] for name in used}


def _set_time(output, records, hashes, times, now):
    """Give `output` a time after its inputs, or before them if one of them is not what it was made from.

    No time is after `now` (ns): after a clock was set back, Snakemake would refuse outputs that seem older
    than their inputs. times: {output: time in ns, as an input} of the outputs already set. Returns
    times[output].
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
        for path in [Path(output), *_benchmarks(records[output])]:
            if _time(path, False) < newest:
                _put_time(path, newest, hashes)
    times[output] = _time(output, True)
    return times[output]


def _benchmarks(record):
    """Return the benchmark files of a job, by a record, which Snakemake counts among its outputs."""
    paths = [Path(log).with_suffix(".tsv") for log in record["snakemake"]["log"]]  # beside the log
    return [path for path in paths if path.exists()]


def _time(path, as_input):
    """Return the time in ns of a file or directory as Snakemake sees it: of a linked input, the later one."""
    stamp = Path(path, ".snakemake_timestamp")
    path = stamp if stamp.is_file() else path
    own = os.stat(path, follow_symlinks=False).st_mtime_ns
    return max(own, os.stat(path).st_mtime_ns) if as_input else own


def _put_time(path, time, hashes):
    sha = hashes.of(path) if Path(path).is_file() else None  # before its time changes
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


def _record_files():
    """Return (output, file) for every record."""
    found = []
    for directory, _, names in os.walk(RECORDS):
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                path = Path(directory, name)
                found.append((str(output_of(path)), path))
    return found


def _look(path):
    """Return [times in ns, size, inode] of a file, which show another one; None if it is missing."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, TypeError):
        return None
    return [status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino]


def _read_seen():
    try:
        seen = files.read_json(SEEN)
        return {output: one for output, one in seen.items() if len(one) == 3 and _is_record(one[2])}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}

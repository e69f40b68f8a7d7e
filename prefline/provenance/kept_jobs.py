"""Tell which jobs of a plan will find their rows, or their whole training, in work/.

A job that starts is noted in STARTED with what shapes its results: rule, names of outputs, params, inputs.
`settle` hashes the inputs, reads in the job's log which folders of work/ it used, and adds both to MEMORY. A
planned job that equals it in all these finds the folders again. An input that another planned job makes is
taken to be what that job made before, if it, too, is known and still whole.

MEMORY serves plans alone. Jobs look into work/ themselves, and find rows that other jobs made, such as those
of regrouped shards. So a job that is not known here computes "at most".
"""

import contextlib
import graphlib
import json
import os
import re
import time
from collections import Counter
from pathlib import Path

from prefline import files
from prefline.provenance import environments, journal, manifest, metadata
from prefline.provenance import hashes as hashing
from prefline.training import cache, checkpoints

STARTED = Path(".snakemake/prefline_started.jsonl")
MEMORY = Path("work/jobs.json")
JOURNALS = Path("work/journal")
# The lines of a log that name a folder of work/, and that a full disk ended a journal.
USED = re.compile(r"^(?:\d+ of \d+ rows are in the journal|this training is kept in) (\S+)$", re.M)
BROKEN = "continuing without the journal"
RESTORED, RESUMED, COMPUTED = "restored", "resumed", "to compute (at most)"


def note_starts(persistence_class):
    """Have Snakemake's class note each job that it starts."""
    started = persistence_class.__dict__.get("prefline_started", persistence_class.started)

    def noted(persistence, job, external_jobid=None):
        with contextlib.suppress(OSError), open(STARTED, "a", encoding="utf-8") as file:
            file.write(json.dumps({**_note(job, persistence), "time": time.time()}) + "\n")
        return started(persistence, job, external_jobid)

    persistence_class.prefline_started, persistence_class.started = started, noted


def _note(job, persistence):
    stack = persistence._software_stack_hash(job)
    return {
        "shape": [
            job.rule.name,
            [str(path) for path in job.output],  # names in them are not among the params
            [str(param) for param in persistence._params(job)],
            stack if stack != environments.NONE else manifest.packages(manifest.NUMERIC),
        ],
        "inputs": [str(path) for path in persistence._input(job)],
        "outputs": [str(path) for path in job.output if not path.is_directory],
        "log": [str(path) for path in job.log],
    }


def settle(hashes):
    """Move the notes of jobs that have started into MEMORY; hashes: Hashes.

    Call it while no job runs, before the times of results are set.
    """
    notes = _notes()
    if not notes:
        return
    known = _memory()
    known = {key: entry for key, entry in known.items() if _is_some(entry) or not entry["folders"]}
    unfinished = {output for output, _ in metadata.entries(metadata.INCOMPLETE)}
    for note in notes:
        entry, key = _entry(note, unfinished, hashes), _key_of_started(note, hashes)
        if entry and key and (entry["ended"] or not known.get(key, entry)["ended"]):
            known[key] = entry
    with contextlib.suppress(OSError):
        files.write_json(MEMORY, known)
        STARTED.unlink(missing_ok=True)


def _notes():
    with contextlib.suppress(OSError, ValueError):
        return [json.loads(line) for line in STARTED.read_text(encoding="utf-8").splitlines()]
    return []


def _memory():
    """Return {key: {made: {output: sha256}, ended, folders: {folder: [one of its files, bytes of all]}}}."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        known = files.read_json(MEMORY)
        return {key: entry for key, entry in known.items() if entry.keys() == {"made", "ended", "folders"}}
    return {}


def _key_of_started(note, hashes):
    """Return the key of a job that started; None if its inputs are others by now."""
    inputs = [path for path in note["inputs"] if not Path(path).is_dir()]
    if all(hashing.is_older(path, note["time"]) for path in inputs):
        return journal.key(note["shape"], [[path, hashes.of(path)] for path in inputs])
    return None


def _entry(note, unfinished, hashes):
    """Return the entry of MEMORY for a job that started; None if nothing of it is kept."""
    try:
        logs = [Path(path) for path in note["log"]]
        if any(path.stat().st_mtime < int(note["time"]) for path in logs):
            return None  # it did not run: --touch
        text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in logs)
    except OSError:
        return None
    folders = {folder: _journal_of(Path(folder)) for folder in USED.findall(text)}
    outputs = note["outputs"]
    ended = all(path not in unfinished and Path(path).exists() for path in outputs)
    if not ended and not folders:
        return None
    return {
        "made": {path: hashes.of(path) for path in outputs} if ended else {},
        "ended": ended and BROKEN not in text,
        "folders": folders,
    }


def _journal_of(folder):
    """Return [one file's name, bytes of all] of the rows in a journal's folder; ["", 0] without any."""
    found = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(".jsonl")}
    return [min(found, default=""), sum(found.values())]


def _is_whole(entry):
    """Return whether a job with this entry of MEMORY will find all that it needs."""
    return all(
        (entry["ended"] and (Path(folder, file).exists() and _journal_of(Path(folder))[1] >= size))
        if Path(folder).is_relative_to(JOURNALS)
        else (Path(folder) / cache.RESULT / cache.RECORD).is_file()
        for folder, (file, size) in entry["folders"].items()
    )


def _is_some(entry):
    """Return whether a job with this entry of MEMORY will find something."""
    return any(
        _journal_of(Path(folder))[1] > 0
        if Path(folder).is_relative_to(JOURNALS)
        else checkpoints.last_complete(folder) or (Path(folder) / cache.RESULT / cache.RECORD).is_file()
        for folder in entry["folders"]
    )


def forecast(dag, persistence, hashes, keeps):
    """Return {job: (state, steps)} of the planned jobs of Snakemake's graph that use work/.

    keeps(job): whether one does; state: RESTORED, RESUMED or COMPUTED; steps: (step, last step) that a
    training resumes after, or None.
    """
    known, planned, found, made = _memory(), set(dag.needrun_jobs()), {}, {}
    before = {job: planned & dag.dependencies[job].keys() for job in planned}
    for job in graphlib.TopologicalSorter(before).static_order():
        entry = known.get(_key_of_planned(_note(job, persistence), made, hashes))
        # An output that nobody can know yet is None, a directory, whose manifest counts, is "".
        made.update({str(path): "" if path.is_directory else None for path in job.output})
        state, steps = COMPUTED, None
        if entry and _is_whole(entry) and (entry["folders"] or not keeps(job)):
            made.update(entry["made"])
            state = RESTORED
        elif entry and _is_some(entry):
            state, steps = RESUMED, next(filter(None, map(_steps, entry["folders"])), None)
        if keeps(job):
            found[job] = state, steps
    return found


def _key_of_planned(note, made, hashes):
    """Return the key of a planned job; None if it is unknown. made: {output of a planned job: sha256}."""
    inputs = []
    for path in note["inputs"]:
        if path not in made and not Path(path).exists():
            return None
        if made.get(path) == "" or (path not in made and Path(path).is_dir()):
            continue
        inputs.append([path, made[path] if path in made else hashes.of(path)])
    return None if any(sha is None for _, sha in inputs) else journal.key(note["shape"], inputs)


def _steps(folder):
    """Return (step, last step) of a training's last checkpoint; None without one."""
    checkpoint = checkpoints.last_complete(folder)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        state = files.read_json(checkpoint / checkpoints.STATE)
        return state["global_step"], state["max_steps"]
    return None


def table(found):
    """Return the forecast of some jobs, {job: (state, steps)}, as lines (str); "" for no job."""
    if not found:
        return ""
    counts = {}
    for job, (state, _) in found.items():
        counts.setdefault(job.rule.name, Counter())[state] += 1
    if all(rule.keys() == {COMPUTED} for rule in counts.values()):
        return "In work/: nothing that is known to save one of these jobs."
    title, states = "In work/:", (RESTORED, RESUMED, COMPUTED)
    width = max(map(len, [title, *counts]))
    lines = [f"{title:{width}}" + "".join(f"  {state}" for state in states)]
    for name, rule in sorted(counts.items()):
        cells = (str(rule[state] or "").rjust(len(state) + 2) for state in states)
        lines.append(f"{name:{width}}{''.join(cells)}".rstrip())
    for job, (_, steps) in found.items():
        if steps:
            made = Path(str(job.output[0])).name
            lines.append(f"{job.rule.name} of {made} resumes after step {steps[0]} of {steps[1]}")
    return "\n".join(lines)

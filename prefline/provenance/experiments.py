"""Keep the results of experiments side by side: each has its own folder, and they share models and answers.

An experiment's win rates are computed from policies' answers and verdicts, which are shared by name. So no
other experiment may replace these: its policies need other names, or the earlier results are removed.
"""

from pathlib import Path

from prefline.errors import InputError
from prefline.provenance import records

FOLDER = "results/experiments"


def names():
    """Return the names (list of str) of the experiments that have win rates."""
    return sorted(path.parent.name for path in Path(FOLDER).glob("*/winrate.json"))


def winrate_of(name):
    """Return the path (str) of an experiment's win rates."""
    return f"{FOLDER}/{name}/winrate.json"


def picture_of(name):
    """Return the path (str) of an experiment's picture, which is made from its win rates and its config."""
    return f"{FOLDER}/{name}/winrate.png"


def unchanged(name, hashes):
    """Return the inputs (set of str) of an experiment's win rates that are still what they were.

    hashes: Hashes.
    """
    record = records.read(winrate_of(name)) or {"inputs": {}}
    return {path for path, sha in record["inputs"].items() if Path(path).exists() and hashes.of(path) == sha}


def inputs(output, hashes):
    """Return {path: sha256} of the inputs of a result of an experiment.

    hashes: Hashes. Raises InputError unless the result, its record and these inputs are there, unchanged.
    """
    record = records.read(output) if Path(output).exists() else None
    again = "snakemake {} --configfile FILE, with the experiment's config"
    if record is None:
        raise InputError(f"{output} is missing, or has no record; run {again.format(output)}")
    for path, sha in sorted(record["inputs"].items()):
        if not Path(path).exists():
            raise InputError(f"{path}, from which {output} was made, is missing; run {again.format(path)}")
        if hashes.of(path) != sha:
            raise InputError(f"{output} was made from another {path}; run {again.format(output)}")
    return record["inputs"]


def check_kept(outputs, experiment, start, hashes):
    """Raise InputError if `outputs` (set of str) of planned jobs are what another experiment is made from.

    experiment: the one that is planned, None for the results without a name; start: the start policy's name;
    hashes: Hashes.
    """
    replaced = {
        name: sorted(found)
        for name in names()
        if name != experiment and (found := outputs & unchanged(name, hashes))
    }
    if not replaced:
        return
    paths = sorted({path for found in replaced.values() for path in found})
    policies = [Path(path).stem for path in paths if "/answers/" in path]
    what = ", ".join(policies or paths[:3])
    if start in policies:
        advice = "work in another clone"
    elif policies and "-" not in policies[0]:
        advice = "give the model another name (models: {other: …}, evaluate: [other])"
    elif policies:
        advice = "give its runs other names (runs: {dpo: null, dpo_other: …})"
    else:
        advice = "give the judge another name"
    several = len(replaced) > 1
    raise InputError(
        f"{f'the experiment {experiment}' if experiment else 'this config'} would replace {what}, from "
        f"which the results of the experiment{'s' * several} {', '.join(replaced)} are made; {advice}, or "
        f"remove {', '.join(f'{FOLDER}/{name}' for name in replaced)} and run "
        f"{'them' if several else 'it'} again: work/ keeps what does not change"
    )

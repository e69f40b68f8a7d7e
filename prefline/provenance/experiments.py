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


def unchanged(name, hashes):
    """Return the inputs (set of str) of an experiment's win rates that are still what they were.

    hashes: Hashes.
    """
    record = records.read(winrate_of(name)) or {"inputs": {}}
    return {path for path, sha in record["inputs"].items() if Path(path).exists() and hashes.of(path) == sha}


def changed(name, hashes):
    """Return the inputs (list of str) of an experiment's win rates that are missing or other files now."""
    record = records.read(winrate_of(name)) or {"inputs": {}}
    return sorted(record["inputs"].keys() - unchanged(name, hashes))


def check_kept(outputs, experiment, start, hashes):
    """Raise InputError if `outputs` (set of str) of planned jobs are what another experiment is made from.

    experiment: the one that is planned, None for the results without a name; start: the start policy's name;
    hashes: Hashes.
    """
    for name in names():
        replaced = sorted(outputs & unchanged(name, hashes)) if name != experiment else []
        if not replaced:
            continue
        policies = [Path(path).stem for path in replaced if "/answers/" in path]
        what = ", ".join(policies or replaced[:3])
        if start in policies:
            advice = "work in another clone"
        elif policies and "-" not in policies[0]:
            advice = "give the model another name (models: {other: …}, evaluate: [other])"
        elif policies:
            advice = "give its runs other names (runs: {dpo: null, dpo_other: …})"
        else:
            advice = "give the judge another name"
        raise InputError(
            f"{f'the experiment {experiment}' if experiment else 'this config'} would replace {what}, from "
            f"which the results of the experiment {name} are made; {advice}, or remove {FOLDER}/{name}"
        )

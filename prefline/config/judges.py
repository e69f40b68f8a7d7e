"""Check the sections of the config about judges: mt_bench.judge, mt_bench.modes and mt_bench.judges."""

from prefline.data.sources import parse_url
from prefline.errors import InputError

# Judges that are not language models: they need no section, and their kind is their name.
BUILT_IN = ("reference", "reward")


def complete(section):
    """Return the section mt_bench (dict) without removed judges; raise InputError for an unknown judge."""
    judges = {name: judge for name, judge in section["judges"].items() if judge is not None}
    if set(section["modes"]) <= {"single"}:
        raise InputError(
            "config: mt_bench.modes: add pairwise-baseline or pairwise-all, for the win rates; ratings alone "
            "are made by `snakemake results/mt_bench/ratings.csv`"
        )
    known = [*BUILT_IN, *judges]
    for name in names_of(section):
        if name not in known:
            raise InputError(
                f"config: mt_bench.judge names the judge {name!r}, which mt_bench.judges lacks; known: "
                f"{', '.join(known)}"
            )
        if name in BUILT_IN and "single" in section["modes"]:
            raise InputError(
                f"config: mt_bench.modes has single, but the judge {name} only compares; remove single, or "
                "name another judge"
            )
    if section["corrections"] and not parse_url(section["references"]):
        raise InputError(
            f"config: mt_bench.corrections is for references that are fetched, and mt_bench.references is "
            f"{section['references']}; correct that file, and set corrections to null"
        )
    for name in judges:
        if name in BUILT_IN:
            raise InputError(f"config: mt_bench.judges.{name}: this name is taken; give the judge another")
    return {**section, "judges": judges}


def names_of(section):
    """Return the judges (list of str) that mt_bench.judge names, the main one first."""
    return section["judge"] if isinstance(section["judge"], list) else [section["judge"]]

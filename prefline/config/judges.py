"""The sections of the config that say who judges: mt_bench.judge, mt_bench.modes and mt_bench.judges."""

from prefline.errors import InputError

# Judges that are no language models: known without a section of their own, each by the name of its kind.
BUILT_IN = ("reference", "reward")


def complete(section):
    """The section mt_bench (dict) without removed judges; InputError for a name that is no judge's."""
    judges = {name: judge for name, judge in section["judges"].items() if judge is not None}
    if set(section["modes"]) <= {"single"}:
        raise InputError(
            "config: mt_bench.modes: add pairwise-baseline or pairwise-all, for the win rates; ratings alone "
            "are made by `snakemake results/ratings.csv`"
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
                f"config: mt_bench.modes has single, and the judge {name} only compares; take another judge"
            )
    for name in judges:
        if name in BUILT_IN:
            raise InputError(f"config: mt_bench.judges.{name}: this name is taken; give the judge another")
    return {**section, "judges": judges}


def names_of(section):
    """The judges (list of str) that mt_bench.judge names, the main one first."""
    return section["judge"] if isinstance(section["judge"], list) else [section["judge"]]

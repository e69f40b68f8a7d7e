"""The sections of the config that say who judges: mt_bench.judge, mt_bench.modes and mt_bench.judges."""

from prefline.errors import InputError

# Judges that are no language models: known without a section of their own, each by the name of its kind.
BUILT_IN = ("reference", "reward")
# What bounds the requests and their cost, and changes no verdict.
LIMITS = {
    "requests_per_minute": 0,
    "tokens_per_minute": 0,
    "input_price": 0.0,
    "output_price": 0.0,
    "max_calls": None,
    "max_cost": None,
}
# All keys but kind and max_tokens, with what they are where the config leaves them out.
ALL = {
    **{"model": None, "dtype": "bfloat16", "servers": None, "served_model": None, "key_variable": None},
    **LIMITS,
}
# The same for each kind of language model, of the keys that it takes.
DEFAULTS = {
    "openai": ALL,
    "anthropic": {"servers": "https://api.anthropic.com/v1", "key_variable": "ANTHROPIC_API_KEY"} | LIMITS,
    "vllm": {"dtype": "bfloat16"},
}
# Those that the config may not leave out.
NEEDED = {"openai": (), "anthropic": ("served_model",), "vllm": ("model",)}


def complete(section):
    """The config's section mt_bench (dict) with every key of every judge.

    Raises InputError for a judge with a key that its kind does not take or lacks, and for a name that is no
    judge's.
    """
    judges = {
        name: _complete(f"mt_bench.judges.{name}", judge)
        for name, judge in section["judges"].items()
        if judge is not None
    }
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


def check(section, models):
    """Raise InputError unless every judge of a section that `complete` gave can be asked.

    models: the config's.
    """
    for name, judge in section["judges"].items():
        key, model = f"mt_bench.judges.{name}", judge["model"]
        if model is not None and model not in models:
            raise InputError(
                f"config: {key}.model names the model {model!r}, which `models` lacks; known: "
                f"{', '.join(models)}"
            )
        if model is None and not judge["servers"]:
            raise InputError(f"config: {key}: name servers to ask, or a model to start one with")
        if model is None and judge["served_model"] is None:
            raise InputError(f"config: {key}.served_model: say what the servers call the judge")
        if set("@?#") & set(judge["servers"] or ""):
            raise InputError(
                f"config: {key}.servers: an address ends with /v1 and has no user or key in it, which logs "
                f"would repeat; export the key, and name its variable in {key}.key_variable"
            )


def _complete(key, judge):
    kind = judge["kind"]
    wanted = {*DEFAULTS[kind], *NEEDED[kind], "kind", "max_tokens"}
    missing = [name for name in (*NEEDED[kind], "max_tokens") if judge.get(name) is None]
    foreign = sorted(name for name, value in judge.items() if name not in wanted and value is not None)
    if missing or foreign:
        wrong = f"lacks {missing[0]!r}" if missing else f"does not take {foreign[0]!r}"
        raise InputError(
            f"config: {key}: the kind {kind} {wrong}; it takes {', '.join(sorted(wanted - {'kind'}))}"
        )
    return ALL | DEFAULTS[kind] | {name: value for name, value in judge.items() if name in wanted}

"""Load config.yaml: convert numbers that YAML reads as text, then validate against the closed schema.

Every mistake is reported before a job starts, with its key and what the key takes.
"""

import contextlib
import copy
import difflib

import jsonschema

from prefline import policies
from prefline.config import config_text, endpoints, mistakes, needs, precedence, sweeps
from prefline.config import judges as judge_settings
from prefline.config import schema as schemas
from prefline.data import entrances
from prefline.errors import InputError
from prefline.training import early_stopping, losses, methods

# The entrance of each trained model's data.
ENTRANCES = {"base": "texts", "sft": "dialogues", "reward_model": "pairs"}
# Number of shards that names of five digits can tell apart.
MOST_SHARDS = 99_999
VALIDATOR = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "number": lambda _, value: schemas.is_number(value),
            "integer": lambda _, value: schemas.is_integer(value),
        }
    ),
)(schemas.whole())
# Refuses 2 where 2.0 may be, so that `_coerce` makes them one value.
FLOATS = jsonschema.validators.extend(
    VALIDATOR.__class__,
    type_checker=VALIDATOR.TYPE_CHECKER.redefine(
        "number", lambda _, value: schemas.is_number(value) and isinstance(value, float)
    ),
)(schemas.whole())


def load(config, files=(), given=None):
    """Return the config as the rules use it: coerced, validated, complete, without removed runs and rewards.

    Runs with a `sweep` are replaced by those of its points, which `sweeps` (sweeps.py) has by run.

    config: dict, as Snakemake merged it; files: its YAML files, overlays first, the later the stronger,
    then config.yaml; given: dict, values of --config. `files` and `given` decide which of several values of
    a training counts (precedence.py), and restore the order of the runs, which merging reverses. Raises
    InputError for the first mistake.
    """
    for file in files:
        config_text.check(file)
    config_text.check_values(config)
    config = copy.deepcopy(config)
    if config.get("experiment") == "null":  # of --config experiment=null, which is text
        config["experiment"] = None
    layers = precedence.layers(files, given) if files else []
    precedence.settle(config, layers)
    if "runs" in config:
        config["runs"] = precedence.kept_runs(config["runs"], layers)
    if isinstance(config.get("runs"), dict):
        order = [name for layer in layers for name in _runs_of(layer)]
        names = [*dict.fromkeys(name for name in order if name in config["runs"]), *config["runs"]]
        runs = {name: config["runs"][name] for name in names}
        runs, own, swept = sweeps.expand({name: run for name, run in runs.items() if run is not None}, layers)
        config["runs"] = {name: _without_nulls(run) for name, run in runs.items()}
    if isinstance(config.get("rewards"), dict):
        config["rewards"] = {
            name: _of_its_kind(one) for name, one in config["rewards"].items() if one is not None
        }
    if isinstance(config.get("benchmarks"), dict):
        config["benchmarks"] = {
            name: section for name, section in config["benchmarks"].items() if section is not None
        }
    if isinstance(config.get("endpoints"), dict):
        config["endpoints"] = endpoints.without_nulls(config["endpoints"])
    endpoints.check_places(config)
    for error in VALIDATOR.iter_errors(config):
        _coerce(config, error)
    if found := list(VALIDATOR.iter_errors(config)):
        raise InputError(f"config: {mistakes.sentence(min(found, key=mistakes.rank))}")
    for error in FLOATS.iter_errors(config):
        _coerce(config, error)
    config["mt_bench"] = judge_settings.complete(config["mt_bench"])
    endpoints.resolve(config)
    precedence.complete(config)
    _complete_systems(config)
    _check_names(config)
    needs.check_evaluated(config)
    needed = needs.models_with_ancestors(config, needs.used_models(config))
    _check_columns(config, needed)
    precedence.check_unused(config, layers)
    precedence.check_learning_rates(config, needed, layers, own)
    config["sweeps"] = swept
    return config


def _complete_systems(config):
    """Give evaluations the system message of the prompts, unless the config gives them another."""
    asking = [section for section in config["benchmarks"].values() if "system" in section]
    for section in (config["mt_bench"], config["vibe_check"], *asking):
        given = config["prompts"]["system"] if section["system"] is None else section["system"]
        section["system"] = given or None


def training(config, run):
    """Return the training keys of a run or chain: those of `train` and `online`, overridden by the run's.

    Leaves out `method`, and the hyperparameters of methods and losses that the run does not use.
    """
    keys = {**config["online"], **config["train"]}
    own = config["runs"][policies.run_of(run)]
    keys = {key: own.get(key, value) for key, value in keys.items()}
    foreign = methods.KEYS - methods.hyperparameters(keys.pop("method"), keys["loss_type"])
    if keys["sampler"] != "vllm" or keys["dtype"] == "float32":
        keys["max_sampling_ratio"] = None  # corrects nothing: an edit trains nothing again
    return {key: value for key, value in keys.items() if key not in foreign}


def of_job(keys):
    """Return training keys (dict) as the training takes them: without peft's `merge_into`."""
    peft = keys["peft"] and {key: value for key, value in keys["peft"].items() if key != "merge_into"}
    return {**keys, "peft": peft}


def method_of(config, run):
    """Return the method (str) that trains the policies of a run or chain."""
    return config["runs"][policies.run_of(run)].get("method", config["train"]["method"])


def _coerce(config, error):
    """Replace the value that `error` reports by the number it means.

    YAML reads 1e-6 (no dot) as text, and values from the command line are text. Where the schema wants an
    integer, 4.0e2 is the integer 400; where it wants a number, 2 is 2.0: one value, so nothing runs again.
    """
    types = error.schema.get("type")
    wanted = {"number", "integer"}.intersection([types] if isinstance(types, str) else types or [])
    if error.validator not in ("type", "pattern") or not wanted:
        return
    if isinstance(error.instance, bool) or not isinstance(error.instance, (str, int, float)):
        return
    *parents, key = error.absolute_path
    section = config
    for parent in parents:
        section = section[parent]
    with contextlib.suppress(ValueError, OverflowError):
        number = float(error.instance)
        if "number" in wanted:
            section[key] = number
        elif number.is_integer() and abs(number) <= schemas.LARGEST:
            section[key] = int(number)


def _check_names(config):
    users = [*config["rewards"].values(), *({"endpoint": one} for one in config["endpoints"].values())]
    named = {
        *map(endpoints.model_of, users),
        *(config["models"][name]["init"] for name in precedence.TRAINED),
    }
    for name in config["models"].keys() - {*precedence.TRAINED, *named}:
        near = difflib.get_close_matches(name, precedence.TRAINED, n=1, cutoff=0.65)
        if near:
            raise InputError(
                f"config: models.{name} is not used, and {near[0]!r} would be trained instead; "
                "correct the name, or give the model another"
            )
    for name in precedence.TRAINED:
        model = config["models"][name]
        early_stopping.check(model["training"], f"config: models.{name}.training.")
        if model["source"] is None and model["init"] not in config["models"]:
            raise InputError(
                f"config: models.{name}.init names the model {model['init']!r}, which `models` lacks; "
                f"known: {', '.join(config['models'])}"
            )
        _check_circle(config["models"], name)
        if name != "reward_model" and model["source"] is None and model["init"] == "reward_model":
            raise InputError(
                f"config: models.{name}.init names reward_model, which gives scores, not text; name another"
            )
        own = [key for key in precedence.OF_FINISHED if model.get(key) not in (None, "own")]
        if model["source"] is None and own:
            raise InputError(
                f"config: models.{name}.{own[0]} is for models with a `source`, but {name} is trained; "
                f"set it for the model that it starts from: models.{model['init']}"
            )
    for name, reward in config["rewards"].items():
        _check_reward(name, reward, config["models"])
    for name, section in config["benchmarks"].items():
        _check_keys("benchmarks", name, section, {"kind"})
        kinds = {reward["kind"] for reward in config["rewards"].values()}
        if section["kind"] == "reward_bench" and not kinds & {"classifier", "pairwise"}:
            raise InputError(
                f"config: benchmarks.{name}: no entry of `rewards` is a model, of the kind classifier or "
                "pairwise, that it could evaluate; remove it, or add one"
            )
    if "reward" in judge_settings.names_of(config["mt_bench"]) and not any(
        reward["kind"] == "classifier" for reward in config["rewards"].values()
    ):
        raise InputError("config: mt_bench.judge is reward, but no entry of `rewards` is a classifier")
    _check_loss("train", config["train"])
    for key in ("num_prompts", "num_test_prompts"):
        number, size = config["prompts"][key], config["prompts"]["shard_size"]
        if number > MOST_SHARDS * size:
            raise InputError(
                f"config: prompts.{key}: {number} prompts would be more than {MOST_SHARDS} shards of {size}; "
                "raise prompts.shard_size"
            )
    taken = set(config["models"])
    for run in config["runs"]:
        if run in taken:
            raise InputError(f"config: runs.{run} has the name of a model; give the run another name")
        _check_loss(f"runs.{run}", config["runs"][run])
        _check_method(config, run)
    _check_seeds(config["runs"])


def _check_seeds(runs):
    """Raise InputError if a run has the name that targets of another run's seed have: generate_dpo_s2_1."""
    for run, section in runs.items():
        for seed in section.get("seeds", []):
            if f"{run}_s{seed}" in runs:
                raise InputError(
                    f"config: runs.{run}.seeds has {seed}, and runs.{run}_s{seed} would give its policies' "
                    "targets the same names; give that run another name"
                )


def _check_circle(models, name):
    """Raise InputError if the model `name` is its own ancestor."""
    path = [name]
    while models[path[-1]]["source"] is None and models[path[-1]]["init"] in models:
        path.append(models[path[-1]]["init"])
        if path[-1] in path[:-1]:
            raise InputError(
                f"config: models.{path[-2]}.init names {path[-1]}, which is trained from it "
                f"({' <- '.join(path)}); name a finished model, such as start"
            )


def _check_columns(config, needed):
    """Raise InputError if the `columns` of data that the workflow reads lack what its entrance needs.

    needed: names of the models that the workflow uses. check_data checks sources with their own columns.
    """
    prompts, preferences = config["prompts"], config["prompts"]["preferences"]
    read = {"prompts": ("prompts", prompts), "vibe_check": ("prompts", config["vibe_check"])}
    if preferences["use"]:
        read["prompts.preferences"] = ("pairs", preferences)
    for name in needed:
        if config["models"][name]["source"] is None:
            read[f"models.{name}"] = (ENTRANCES[name], config["models"][name])
    for key, (entrance, section) in read.items():
        if section["columns"] != "auto":
            entrances.check(entrance, section["columns"], f"config: {key}.columns")


def _check_loss(name, section):
    """Raise InputError if the loss_type of a section of the config names no loss."""
    try:
        losses.check_names(section.get("loss_type", []))
    except InputError as error:
        raise InputError(f"config: {name}.loss_type: {error}") from None


def _without_nulls(run):
    """Return a section of `runs` without null hyperparameters or seeds: an overlay removes one with null.

    A run needs this when it replaces the default's loss or method.
    """
    if not isinstance(run, dict):
        return run
    removable = methods.KEYS - methods.NULLABLE | {"seeds"}
    return {key: value for key, value in run.items() if value is not None or key not in removable}


def _check_method(config, run):
    """Raise InputError if a run has a hyperparameter that its method or loss does not take."""
    keys, method = training(config, run), method_of(config, run)
    own = {key for key, value in config["runs"][run].items() if value is not None}
    foreign = sorted(methods.KEYS & own - keys.keys())
    if foreign:
        own = sorted((methods.KEYS - {"loss_type"}) & keys.keys())
        raise InputError(
            f"config: runs.{run}: {methods.name(method, keys.get('loss_type'))} does not take {foreign[0]!r} "
            f"(null removes it); it takes {', '.join(own)}"
        )
    early_stopping.check(keys, f"config: runs.{run}.")
    try:
        methods.check(method, keys, config["rewards"])
    except InputError as error:
        raise InputError(f"config: runs.{run}: {error}") from None


def _of_its_kind(reward):
    """Return a section of `rewards` without other kinds' nulls: an overlay can change a reward's kind."""
    kinds = schemas.kinds("rewards.NAME")
    if not isinstance(reward, dict) or str(reward.get("kind")) not in kinds:
        return reward
    others = {key for keys in kinds.values() for key in keys} - set(kinds[reward["kind"]])
    return {key: value for key, value in reward.items() if value is not None or key not in others}


def _check_keys(parent, name, section, shared):
    """Return the keys (list of str) that the kind of a section takes beside those that all kinds share.

    Raises InputError unless the section PARENT.NAME has just these.
    """
    kind, given = section["kind"], section.keys() - shared
    wanted = schemas.kinds(f"{parent}.NAME")[kind]
    missing = [key for key in wanted if key not in given]
    foreign = sorted(given - set(wanted))
    if missing or foreign:
        wrong = f"lacks {missing[0]!r}" if missing else f"does not take {foreign[0]!r}"
        raise InputError(f"config: {parent}.{name}: the kind {kind} {wrong}; it takes {', '.join(wanted)}")
    return wanted


def _check_reward(name, reward, models):
    """Raise InputError unless the section `reward` has the keys of its kind, and its model is there."""
    key = f"rewards.{name}"
    wanted = _check_keys("rewards", name, reward, {"kind", "weight", "normalize"})
    model = reward.get("model")
    if model is None and "model" in wanted:
        raise InputError(f"config: {key}.model: name an entry of `models`")
    if reward["kind"] == "classifier" and model in ("base", "sft") and models[model]["source"] is None:
        raise InputError(f"config: {key}.model: {model} is trained as a language model, and gives no scores")
    if reward["kind"] == "pairwise" and model == "reward_model" and models[model]["source"] is None:
        raise InputError(f"config: {key}.model: {model} is trained as a classifier, and compares no answers")
    if reward["kind"] == "judge" and reward["lowest"] >= reward["highest"]:
        raise InputError(f"config: {key}.lowest is {reward['lowest']:g}: it must be below {key}.highest")
    if model is not None and model not in models:
        raise InputError(
            f"config: {key}.model names the model {model!r}, which `models` lacks; known: {', '.join(models)}"
        )


def _runs_of(layer):
    """Return names of the runs in the contents of a YAML file, in its order."""
    runs = layer.get("runs") if isinstance(layer, dict) else None
    return list(runs) if isinstance(runs, dict) else []

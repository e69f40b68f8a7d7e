"""config.yaml: numbers that YAML reads as text made numbers, then held against the closed schema.

Every mistake is found before a job starts, and named with its key and what the key takes.
"""

import contextlib
import copy
import decimal
import difflib
from pathlib import Path

import jsonschema
import yaml

from prefline.config import endpoints, precedence
from prefline.config import judges as judge_settings
from prefline.config import schema as schemas
from prefline.errors import InputError
from prefline.training import early_stopping, losses, methods

LOSS_KEYS = losses.hyperparameters(list(losses.LOSSES))
VALIDATOR = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "number": lambda _, value: schemas.is_number(value),
            "integer": lambda _, value: schemas.is_integer(value),
        }
    ),
)(schemas.whole())


def load(config, files=(), given=None):
    """The config as the rules use it: coerced, validated, complete, without removed runs and rewards.

    config: dict, as Snakemake merged it; files: the YAML files it came from, overlays first, the later the
    stronger, then config.yaml; given: dict, values of --config. They decide which of several values of a
    training counts (precedence.py), and the runs' order, which merging turns around.
    Raises InputError with one sentence for the first mistake.
    """
    for file in files:
        _check_doubled_keys(file)
    config = copy.deepcopy(config)
    layers = precedence.layers(files, given) if files else []
    precedence.settle(config, layers)
    if isinstance(config.get("runs"), dict):
        order = [name for layer in layers for name in _runs_of(layer)]
        names = [*dict.fromkeys(name for name in order if name in config["runs"]), *config["runs"]]
        runs = {name: config["runs"][name] for name in names}
        config["runs"] = {name: _without_nulls(run) for name, run in runs.items() if run is not None}
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
    mistakes = list(VALIDATOR.iter_errors(config))
    if mistakes:
        raise InputError(f"config: {_sentence(min(mistakes, key=_rank))}")
    config["mt_bench"] = judge_settings.complete(config["mt_bench"])
    endpoints.resolve(config)
    precedence.complete(config)
    _check_names(config)
    named = map(endpoints.model_of, config["rewards"].values())
    precedence.check_learning_rates(config, needed_models(config, ["sft", *named]), layers)
    return config


def training(config, run):
    """The training keys of a run: `train` and `online` with the run's own values in their place.

    Without `method`, and without the hyperparameters of other methods and losses than the run's: their values
    do not concern it.
    """
    keys = {**config["online"], **config["train"]}
    own = config["runs"][run]
    keys = {key: own.get(key, value) for key, value in keys.items()}
    foreign = methods.KEYS - methods.hyperparameters(keys.pop("method"), keys["loss_type"])
    return {key: value for key, value in keys.items() if key not in foreign}


def of_job(keys):
    """Training keys (dict) as the training takes them: without what its adapters are merged into later."""
    peft = keys["peft"] and {key: value for key, value in keys["peft"].items() if key != "merge_into"}
    return {**keys, "peft": peft}


def method_of(config, run):
    """The method (str) that trains the policies of a run."""
    return config["runs"][run].get("method", config["train"]["method"])


def needed_models(config, names):
    """The models of `names` (None is no name) and what they are trained from, in the config's order."""
    found, waiting = set(), list(names)
    for name in waiting:
        if name is not None and name not in found:
            found.add(name)
            if config["models"][name]["source"] is None:
                waiting.append(config["models"][name]["init"])
    return [name for name in config["models"] if name in found]


def _coerce(config, error):
    """Put a number in place of what `error` finds where a number is meant.

    YAML reads 1e-6 (no dot) as text, and values from the command line are text. Where an integer is meant,
    4.0e2 is the integer 400.
    """
    types = error.schema.get("type")
    wanted = {"number", "integer"}.intersection([types] if isinstance(types, str) else types or [])
    if error.validator not in ("type", "pattern") or not wanted:
        return
    if isinstance(error.instance, bool) or not isinstance(error.instance, (str, float)):
        return
    *parents, key = error.absolute_path
    section = config
    for parent in parents:
        section = section[parent]
    with contextlib.suppress(ValueError, ArithmeticError):
        number = decimal.Decimal(error.instance)
        if "number" in wanted:
            section[key] = float(number)
        elif number == int(number):
            section[key] = int(number)


def _rank(error):
    """Which of several mistakes to name: an unknown key before what it leaves missing.

    A wrong value makes jsonschema call the rest of its section unevaluated: that is no mistake of its own.
    """
    if error.validator in ("additionalProperties", "unevaluatedProperties"):
        return 0 if _unknown_key(error) else 2
    return 1


def _unknown_key(error):
    """The first key of a section that its schema does not have, or None."""
    known = schemas.properties(error.schema)
    return next((name for name in error.instance if name not in known), None)


def _sentence(error):
    key = ".".join(str(part) for part in error.absolute_path) or "the top level"
    schema = error.schema
    if error.validator in ("additionalProperties", "unevaluatedProperties"):
        known, unknown = sorted(schemas.properties(schema)), _unknown_key(error)
        near = difflib.get_close_matches(str(unknown), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{key} has no key {unknown!r}; {hint}"
    message = error.message
    if error.validator == "enum" and isinstance(error.instance, str):
        near = difflib.get_close_matches(error.instance, map(str, error.validator_value), n=1)
        if near:
            message = f"{error.instance!r} is none of its values; did you mean {near[0]!r}?"
    meaning = f" ({schema['description']})" if "description" in schema and error.instance is not None else ""
    return f"{key}: {message}{meaning}"


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
                f"config: models.{name} is named by nothing, and {near[0]!r} would be trained in its place; "
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
    for name, reward in config["rewards"].items():
        _check_reward(name, reward, config["models"])
    for name, section in config["benchmarks"].items():
        _check_keys("benchmarks", name, section, {"kind"})
    if "reward" in judge_settings.names_of(config["mt_bench"]) and not any(
        reward["kind"] == "classifier" for reward in config["rewards"].values()
    ):
        raise InputError("config: mt_bench.judge is reward, but no entry of `rewards` is a classifier")
    _check_loss("train", config["train"])
    taken = set(config["models"])
    for run in config["runs"]:
        if not isinstance(run, str):
            raise InputError(f"config: runs.{run}: YAML reads this name as {type(run).__name__}; rename it")
        if run in taken:
            raise InputError(f"config: runs.{run} has the name of a model; give the run another name")
        _check_loss(f"runs.{run}", config["runs"][run])
        _check_method(config, run)


def _check_loss(name, section):
    """Raise InputError if the loss_type of a section of the config names no loss."""
    try:
        losses.check_names(section.get("loss_type", []))
    except InputError as error:
        raise InputError(f"config: {name}.loss_type: {error}") from None


def _without_nulls(run):
    """A section of `runs` without null hyperparameters of methods and losses: so an overlay takes one away.

    That is what another loss or method than the default's asks for.
    """
    if not isinstance(run, dict):
        return run
    return {key: value for key, value in run.items() if value is not None or key not in methods.KEYS}


def _check_method(config, run):
    """Raise InputError if a run has a hyperparameter that its method or loss does not take, or not so."""
    keys, method = training(config, run), method_of(config, run)
    foreign = sorted(methods.KEYS & config["runs"][run].keys() - keys.keys())
    if foreign:
        own = sorted((methods.KEYS - {"loss_type"}) & keys.keys())
        raise InputError(
            f"config: runs.{run}: {methods.name(method, keys.get('loss_type'))} does not take {foreign[0]!r} "
            f"(null takes it away); it takes {', '.join(own)}"
        )
    early_stopping.check(keys, f"config: runs.{run}.")
    try:
        methods.check(method, keys, config["rewards"])
    except InputError as error:
        raise InputError(f"config: runs.{run}: {error}") from None


def _of_its_kind(reward):
    """A section of `rewards` without the nulls of other kinds: so an overlay changes the kind of a reward."""
    kinds = schemas.kinds("rewards.NAME")
    if not isinstance(reward, dict) or reward.get("kind") not in kinds:
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
        raise InputError(f"config: {key}.lowest is {reward['lowest']}: it must be below {key}.highest")
    if model is not None and model not in models:
        raise InputError(
            f"config: {key}.model names the model {model!r}, which `models` lacks; known: {', '.join(models)}"
        )


def _runs_of(layer):
    """Names of the runs in the contents of a YAML file, in its order."""
    runs = layer.get("runs") if isinstance(layer, dict) else None
    return list(runs) if isinstance(runs, dict) else []


def _check_doubled_keys(file):
    """YAML keeps the last of two equal keys in silence: two runs of one name would lose the first."""

    def visit(node, path):
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if key.value in seen:
                    raise InputError(
                        f"{file}, line {key.start_mark.line + 1}: {'.'.join([*path, key.value])} is given "
                        "twice; rename or remove one"
                    )
                seen.add(key.value)
                visit(value, [*path, key.value])
        elif isinstance(node, yaml.SequenceNode):
            for child in node.value:
                visit(child, path)

    node = yaml.compose(Path(file).read_text(encoding="utf-8"))
    if node is not None:
        visit(node, [])

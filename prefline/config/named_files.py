"""Check that the local files and folders that the config names exist, before any job is planned.

A missing file does not stop Snakemake where another rule makes the same output, or where that output exists.
The schema marks paths by the keyword `path`: `file`, `directory`, `function` (FILE.py:NAME), and those that
may be fetched instead: `model` (a directory), `data` (files, a folder or a pattern) and `fetched_file`.
"""

import contextlib
import difflib
import json
from pathlib import Path

import jsonschema

from prefline import model_directory, paths
from prefline.config import functions, needs, schema
from prefline.config import judges as judge_settings
from prefline.config import loading as configuration
from prefline.data import sources
from prefline.errors import InputError
from prefline.training import losses

# The positional arguments of a reward function.
GIVEN = ("messages", "completion", "reference")
# Bytes at the beginning of a file that show whether it is text.
TEXT_START = 4096
# MT-Bench's categories: config.yaml has temperatures for them, with any questions.
PUBLISHED = ("writing", "roleplay", "extraction", "math", "coding", "reasoning", "stem", "humanities")


def check(config):
    """Raise InputError for the first missing or unusable path of a config, or of a part of one."""
    for error in VALIDATOR.iter_errors(config):
        if error.validator == "path":
            raise InputError(f"config: {'.'.join(map(str, error.absolute_path))}: {error.message}")
    for name, model in config.get("models", {}).items():
        _check_model(name, model, name in needs.answering_models(config))
    for name, reward in config.get("rewards", {}).items():
        if reward["kind"] == "function":
            try:
                functions.check([reward["function"]], GIVEN, "arguments", reward["arguments"])
            except InputError as error:
                raise InputError(f"config: rewards.{name}: {error}") from None
            columns = config.get("prompts", {}).get("columns", {"reference": ""})
            if columns.get("reference") is None and functions.needs(reward["function"], "reference"):
                raise InputError(
                    f"config: rewards.{name}: {reward['function']} compares answers with a reference, but no "
                    "column has one; name it in prompts.columns.reference"
                )
    if "mt_bench" in config:
        _check_categories(config["mt_bench"])


def _check_model(name, model, weights):
    """Raise InputError for a local model that its job would refuse; weights: whether it must have some."""
    for source in sources.local_files(model["source"]):
        directory, pickled = Path(source), model.get("pickled_weights", False)
        if wrong := model_directory.broken_file(directory):
            raise InputError(f"config: models.{name}.source: {wrong}")
        names = [path.name for path in directory.iterdir()]
        if wrong := model_directory.mistake(directory, names, weights, pickled):
            raise InputError(f"config: models.{name}.source: {source} {wrong}")


def _check_categories(section):
    """Raise InputError if mt_bench.temperature lacks a category of the questions, or names an unknown one.

    The jobs that read fetched questions, or questions in another form, check these.
    """
    if not sources.local_files(section["questions"]):
        return
    asked = set()
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
        lines = Path(section["questions"]).read_text(encoding="utf-8").splitlines()
        asked = {json.loads(line)["category"] for line in lines if line.strip()}
    given = section["temperature"]
    known = sorted(asked | set(PUBLISHED))
    for category in given.keys() - known if asked else ():
        near = difflib.get_close_matches(category, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise InputError(f"config: mt_bench.temperature: no question is of the category {category!r}; {hint}")
    for category in sorted(asked - given.keys()):
        raise InputError(
            f"config: mt_bench.temperature lacks the category {category!r} of {section['questions']}; add it"
        )


def own_code(config):
    """Return the files (sorted list of str) of the user's that the rewards and losses of a config are in."""
    named = {
        functions.file_of(reward["function"])
        for reward in needs.used_rewards(config).values()
        if "function" in reward
    }
    for run in config["runs"]:
        named.update(losses.own_files(configuration.training(config, run).get("loss_type", [])))
    return sorted(named)


def used(config):
    """Return the config without the paths that no job reads.

    Leaves out the paths of benchmarks, too: users download published benchmarks, only
    `results/benchmarks/benchmarks.csv` needs them, and its rules check them.
    """
    judges = judge_settings.names_of(config["mt_bench"])
    asked = any(name not in judge_settings.BUILT_IN for name in judges)
    models = {
        name: _without(config["models"][name], *_unused_of_model(config["models"][name]))
        for name in needs.models_with_ancestors(config, needs.answering_models(config))
    }
    prompts = config["prompts"]
    unused = [] if config["runs"] else ["source"]
    unused += [] if config["runs"] and prompts["preferences"]["use"] else ["preferences"]
    mt_bench = _without(
        config["mt_bench"],
        *(() if asked else ("judge_prompts",)),
        *(() if asked or "reference" in judges else ("references",)),
    )
    return {
        **config,
        "benchmarks": {name: {"kind": one["kind"]} for name, one in config["benchmarks"].items()},
        "models": models,
        "prompts": _without(prompts, *unused),
        "rewards": needs.used_rewards(config),
        "mt_bench": mt_bench,
    }


def _unused_of_model(section):
    return ("chat_template",) if section["source"] is None else ("train_data", "eval_data")


def _without(section, *keys):
    return {key: value for key, value in section.items() if key not in keys}


def _find(validator, kind, value, _):
    """Yield an error for a local path (str) without anything usable of its kind; for jsonschema."""
    if not isinstance(value, str) or _is_fetched(kind, value):
        return
    if kind == "data":
        wrong = sources.mistake(value)
        if not wrong and not any(path.stat().st_size for path in sources.paths(value)):
            wrong = f"{value} is empty; name data with rows"
    elif kind in ("model", "directory"):
        wrong = paths.mistake(value, "directory", "hub:ID@COMMIT" if kind == "model" else None)
    else:
        wrong = (
            paths.mistake(functions.file_of(value), "file") if kind == "function" else _file_mistake(value)
        )
    if wrong:
        yield jsonschema.ValidationError(wrong)


def _is_fetched(kind, value):
    if kind == "fetched_file":
        return sources.parse_url(value) is not None
    return kind in ("model", "data") and sources.parse_hub(value) is not None


def _file_mistake(value):
    """Return the mistake (str) in a path of a text file; None if there is none."""
    if wrong := paths.mistake(value, "file"):
        return wrong
    with open(value, "rb") as file:
        start = file.read(TEXT_START)
    if not start.strip():
        return f"{value} is empty; name another file"
    return f"{value} is not a text file; name another file" if b"\0" in start else None


VALIDATOR = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"path": _find})(schema.whole())

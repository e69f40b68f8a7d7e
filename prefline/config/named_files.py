"""The local files and folders that the config names: each must exist before any job is planned.

A missing file does not stop Snakemake where another rule makes the same output, or where that output exists.
The schema tells which values are paths, by the keyword `path`: `file`, `directory` or `function` (of
FILE.py:NAME).
"""

from pathlib import Path

import jsonschema

from prefline import files
from prefline.config import endpoints, functions, schema
from prefline.config import judges as judge_settings
from prefline.config import loading as configuration
from prefline.data import sources
from prefline.errors import InputError

# What a reward function is given by position.
GIVEN = ("messages", "completion", "reference")


def check(config):
    """Raise InputError with one sentence for the first missing path of a config, or of a part of one."""
    for error in VALIDATOR.iter_errors(config):
        if error.validator == "path":
            raise InputError(f"config: {'.'.join(map(str, error.absolute_path))}: {error.message}")
    for name, reward in config.get("rewards", {}).items():
        if reward["kind"] == "function":
            try:
                functions.check([reward["function"]], GIVEN, "arguments", reward["arguments"])
            except InputError as error:
                raise InputError(f"config: rewards.{name}: {error}") from None


def used(config):
    """Return the config without the paths that nothing reads.

    Those of benchmarks are left out, too: published ones are downloaded by hand, and nothing but
    `results/benchmarks.csv` needs them, whose rules check them.
    """
    judges = judge_settings.names_of(config["mt_bench"])
    asked = [config["mt_bench"]["judges"][name] for name in judges if name not in judge_settings.BUILT_IN]
    named = [endpoints.model_of(section) for section in (*config["rewards"].values(), *asked)]
    models = {
        name: _without(config["models"][name], *_unused_of_model(config["models"][name]))
        for name in configuration.needed_models(config, ["sft", *named])
    }
    prompts = config["prompts"]
    mt_bench = _without(
        config["mt_bench"],
        *(() if asked else ("judge_prompts",)),
        *(() if asked or "reference" in judges else ("references",)),
    )
    return {
        **_without(config, "benchmarks"),
        "models": models,
        "prompts": prompts if prompts["preferences"]["use"] else _without(prompts, "preferences"),
        "mt_bench": mt_bench,
    }


def _unused_of_model(section):
    return ("chat_template",) if section["source"] is None else ("train_data", "eval_data")


def _without(section, *keys):
    return {key: value for key, value in section.items() if key not in keys}


def _find(validator, kind, value, _):
    """Yield an error for a local path (str) without anything of its kind; for jsonschema."""
    if isinstance(value, str) and sources.local_files(value):
        path = Path(value.rpartition(":")[0] if kind == "function" else value)
        if mistake := files.mistake(path, "directory" if kind == "directory" else "file"):
            yield jsonschema.ValidationError(mistake)


VALIDATOR = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"path": _find})(schema.whole())

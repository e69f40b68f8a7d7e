"""The workflow as Snakemake sees it, and what becomes of it when a value of the config changes.

Which jobs depend on a value is asked of the workflow itself: it is built again with another value, and the
jobs that differ are the answer. No list of dependencies can be out of date.
"""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import yaml

from scripts.common import config as configuration

CONFIG = Path("config.yaml")


class Job(NamedTuple):
    """One job: what Snakemake compares of it (params, inputs) and what it is."""

    rule: str
    section: str  # the file under rules/ that it stands in, without its ending
    wildcards: tuple  # of (name, value)
    inputs: tuple
    outputs: tuple
    params: tuple


def jobs(overlay=None):
    """{first output: Job} for everything that `snakemake` would run if nothing were made yet.

    overlay: dict, config values laid over config.yaml.
    """
    from snakemake.api import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings, SnakemakeApi

    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        SnakemakeApi(OutputSettings(quiet={"all"})) as api,
    ):
        workflow = api.workflow(
            ResourceSettings(),
            config_settings=ConfigSettings(config=overlay or {}),
            snakefile=Path("Snakefile"),
        )
        # Snakemake has no call that only builds the graph; drawing it does.
        workflow.dag(DAGSettings(forceall=True)).printrulegraph()
        return {str(job.output[0]): _job(job) for job in workflow._workflow.dag.jobs if job.output}


def _job(job):
    return Job(
        job.rule.name,
        Path(job.rule.snakefile).stem,
        tuple(job.wildcards_dict.items()),
        tuple(sorted(map(str, job.input))),
        tuple(map(str, job.output)),
        tuple((name, str(value)) for name, value in sorted(job.params.items())),
    )


def changed(before, after):
    """The jobs (set of names) that differ between two results of `jobs`, or are in one alone."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def downstream(names, graph):
    """`names` and every job of `graph` (as `jobs` gives it) that is made from what they make."""
    made_by = {output: name for name, job in graph.items() for output in job.outputs}
    reached, waiting = set(), [name for name in names if name in graph]
    users = {}
    for name, job in graph.items():
        for path in job.inputs:
            if path in made_by:
                users.setdefault(made_by[path], []).append(name)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += users.get(name, [])
    return reached


def leaves():
    """{path: overlay that gives it another valid value} for every value of config.yaml.

    path: tuple of keys. What a run may override counts as a value of it, whether or not it does.
    """
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    checked = configuration.load(config)
    for name in config["runs"]:
        config["runs"][name] = {**configuration.training(checked, name), **config["runs"][name]}
    return {
        path: _nested(path, _other(path, value, _schema_of(path)), config)
        for path, value in _walk(config, ())
    }


def _walk(section, path):
    for key, value in section.items():
        if isinstance(value, dict) and value:
            yield from _walk(value, (*path, key))
        else:
            yield (*path, key), value


def _nested(path, value, config):
    overlay = value
    for key in reversed(path):
        overlay = {key: overlay}
    if path[-1] == "init" and path[0] == "models":
        overlay["models"]["another"] = {"source": config["models"]["start"]["source"]}
    return overlay


def _schema_of(path):
    """The schema of the value at `path` of the config, references followed."""
    schema = configuration.SCHEMA
    for key in path:
        schema = _child(_resolved(schema), key)
    return _resolved(schema)


def _resolved(schema):
    while "$ref" in schema:
        named = configuration.SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        schema = {**named, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _child(schema, key):
    for part in [schema, *map(_resolved, schema.get("allOf", []))]:
        if key in part.get("properties", {}):
            return part["properties"][key]
    return schema["additionalProperties"]


def _other(path, value, schema):
    """Another value than `value` that the schema allows."""
    if "enum" in schema:
        return next((choice for choice in schema["enum"] if choice != value), value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        steps = (1, -1) if isinstance(value, int) and schema["type"] == "integer" else (0.25, -0.25)
        return next(value + step for step in steps if _allowed(value + step, schema))
    if path[0] == "models" and path[-1] == "source":
        return "data/making" if value == "data/policy" else "data/policy"
    if path[-1] == "init":
        return "another"
    if path[-1] == "peft":
        return {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}
    if path[-1] == "preferences":
        columns = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
        source = "data/world/preferences_train.jsonl"
        return {"source": source, "columns": {**columns, "chosen_reward": None, "rejected_reward": None}}
    if isinstance(value, str) and value.endswith(".jsonl"):
        return str(next(file for file in sorted(Path("data").rglob("*.jsonl")) if str(file) != value))
    return "another"


def _allowed(value, schema):
    return configuration.VALIDATOR.evolve(schema=schema).is_valid(value)

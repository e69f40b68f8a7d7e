"""The workflow as Snakemake sees it, and what becomes of it when a value of the config changes.

The workflow itself shows which jobs depend on a value: it is built again with another value, and the jobs
that differ depend on it. So no list of dependencies can be out of date.
"""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import yaml

from prefline.config import loading as configuration
from prefline.config import precedence
from prefline.config import schema as schemas
from prefline.training import losses, methods

CONFIG = Path("config.yaml")
OUR_FUNCTIONS = [f"prefline/rewards/functions.py:{name}" for name in ("length", "valid_json")]
ANOTHER = {"another": {"kind": "openai", "urls": ["http://localhost/v1"], "model": "another"}}


class Job(NamedTuple):
    """One job: what Snakemake compares of it (params, inputs) and what it is."""

    rule: str
    section: str  # the file under rules/ that contains it, without its ending
    wildcards: tuple  # of (name, value)
    inputs: tuple
    outputs: tuple
    params: tuple

    @property
    def script(self):
        """Return path of the script that it runs, which its param `code` names."""
        return dict(self.params)["code"].split()[1]


def jobs(overlay=None):
    """Return {first output: Job} for everything that `snakemake` would run if nothing were made yet.

    overlay: dict, values that config.yaml is edited to have.
    """
    with dag(overlay, forceall=True) as made:
        return jobs_of(made)


def jobs_of(made):
    """Return {first output: Job} for all jobs of what `dag` yields."""
    return {str(job.output[0]): _job(job) for job in made.jobs if job.output}


@contextlib.contextmanager
def dag(overlay=None, **settings):
    """Return Snakemake's graph of all jobs for its default target, without printing anything.

    overlay: as in `jobs`; settings: of its DAGSettings.
    """
    from snakemake.api import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings, SnakemakeApi
    from snakemake.utils import update_config

    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as edited,
        SnakemakeApi(OutputSettings(quiet={"all"})) as api,
    ):
        # A file with all values: in one file a run's own still count more than those of `train`.
        config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
        update_config(config, overlay or {})
        yaml.safe_dump(config, edited, sort_keys=False)
        edited.flush()
        workflow = api.workflow(
            ResourceSettings(),
            config_settings=ConfigSettings(configfiles=[Path(edited.name)]),
            snakefile=Path("Snakefile"),
        )
        # Snakemake has no call that only builds the graph; drawing it does.
        workflow.dag(DAGSettings(max_checksum_file_size=0, **settings)).printrulegraph()
        yield workflow._workflow.dag


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
    """Return the jobs (set of names) that differ between two results of `jobs`, or are in one alone."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def downstream(names, graph):
    """Return `names` and every job of `graph` (as `jobs` gives it) that is made from what they make."""
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


def edits():
    """Return [(path, overlay)]: each value of config.yaml changed to another valid one; path: tuple of keys.

    Every key that a training may set counts as a value of it, set or not. One run stands for all with
    the same keys, method and loss.
    """
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    checked = configuration.load(config)
    del config["machine"], config["experiment"]  # no job depends on the one; all results move with the other
    del config["mt_bench"]["corrections"]  # of fetched references; the default's are a file
    config["train"] = checked["train"]
    for name in precedence.TRAINED:
        config["models"][name]["training"] = checked["models"][name]["training"]
    alike = {}
    for name, run in config["runs"].items():
        pattern = sorted(run), run.get("method"), run.get("loss_type"), run["iterations"] > 1
        alike.setdefault(json.dumps(pattern), name)
    for name in alike.values():
        config["runs"][name] = {**configuration.training(checked, name), **config["runs"][name]}
    return [
        (path, _nested(path, other, config))
        for path, value in _walk(config, ())
        if path[0] != "runs" or path[1] in alike.values()
        for other in _others(path, value, schema_of(path))
    ]


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
    if (path[0], path[-1]) in (("models", "init"), ("rewards", "model")):
        overlay.setdefault("models", {})["another"] = {"source": f"hub:prefline/another@{'0' * 40}"}
    if path[-1] in ("endpoint", "judges"):
        overlay["endpoints"] = ANOTHER
    if path == ("generate", "endpoint"):
        overlay["generate"]["engine"] = "server"
    if path[-1] == "kind":
        dropped = dict.fromkeys(schemas.kinds("rewards.NAME")[config["rewards"][path[1]]["kind"]])
        function = {"function": OUR_FUNCTIONS[0], "arguments": {}}
        overlay["rewards"][path[1]] |= dropped | function
    if path[-1] in ("checkpoint", "early_stopping_patience"):  # which use evaluations during training
        section = overlay
        for key in path[:-1]:
            section = section[key]
        section["eval_steps"] = 1
    if path[-1] == "method":
        foreign = methods.KEYS - methods.hyperparameters(value, config["train"]["loss_type"])
        runs = overlay.setdefault("runs", {})
        for name in [path[1]] if path[0] == "runs" else config["runs"]:
            runs.setdefault(name, {}).update(dict.fromkeys(foreign & config["runs"][name].keys()))
    return overlay


def schema_of(path):
    """Return the schema of the value at `path` (tuple of keys) of the config, references followed."""
    return schemas.at(".".join(path))


def _others(path, value, schema):
    """Return other values than `value` that the schema allows: one, or both neighbours of an integer."""
    if path[-1] == "kind":
        return [] if value == "function" else ["function"]
    if path[-1] == "function":
        return [other for other in OUR_FUNCTIONS if other != value][:1]
    if path == ("date",):
        return ["2026-01-02"]
    if path[-1] == "rubric":
        return ["data/README.md"]
    if path == ("mt_bench", "judge"):
        return ["reward"]
    if path == ("mt_bench", "modes"):
        return [["pairwise-all"]]
    if path == ("endpoints",):
        return [ANOTHER]
    if path == ("evaluate",):
        return [["base"]]
    if path == ("mt_bench", "judges"):
        return [{"another": {"endpoint": "another", "max_tokens": 1}}]
    if path == ("benchmarks",):
        kind = "alpaca_eval_annotations"
        return [{"another": {"kind": kind, "annotations": "data/README.md", "regression_data": None}}]
    if path[-1] in ("head_weights", "loss_weights"):
        return [[1.0]]
    if path[-1] == "loss_arguments":
        return [{"lam": 5.0}]
    if path[-1] == "num_generations":  # must divide the batch as `value` does
        divisors = [number for number in range(2, value) if value % number == 0]
        return [*divisors, 2 * value][:1]
    if path[-1] == "global_batch_size":
        return [2 * value]
    if path[-1] == "loss_type":  # a run may name hyperparameters
        wanted = losses.hyperparameters(value)
        return [
            other for other in losses.LOSSES if other != value and wanted <= losses.hyperparameters(other)
        ][:1]
    if "enum" in schema.get("items", {}):
        return [[choice] for choice in schema["items"]["enum"] if [choice] != value][:1]
    if "enum" in schema:
        return [choice for choice in schema["enum"] if choice != value][:1]
    if isinstance(value, bool):
        return [not value]
    if value is None and "integer" in schema.get("type", ()):
        return [schema["minimum"]]
    if isinstance(value, int) and schema["type"] == "integer":
        return [other for other in (value + 1, value - 1) if _allowed(other, schema)]
    if isinstance(value, (int, float)):
        return [other for other in (value + 0.25, value - 0.25) if _allowed(other, schema)][:1]
    if path[0] == "models" and path[-1] == "source":
        return [f"hub:prefline/another@{'0' * 40}"]
    if path[-1] == "peft":
        return [{"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}]
    if path[-1] == "preferences":
        columns = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
        source = "data/world/preferences_train.jsonl"
        return [{"source": source, "columns": {**columns, "chosen_reward": None, "rejected_reward": None}}]
    if isinstance(value, str) and value.endswith(".jsonl"):
        return [next(str(file) for file in sorted(Path("data").rglob("*.jsonl")) if str(file) != value)]
    return ["another"]


def _allowed(value, schema):
    return configuration.VALIDATOR.evolve(schema=schema).is_valid(value)

"""Print dvc.yaml, made from the Snakemake workflow itself: `make dvc.yaml`.

A stage is what one file under rules/ does for one policy or model. Its command has Snakemake run the rules
of that file and no others; DVC deletes the stage's outputs beforehand, so that whatever DVC records next to
a parameter was made with it. Adding a run or an iteration to config.yaml changes the stages: make them again.

    python -m scripts.dvc_stages > dvc.yaml
"""

import contextlib
import os
import shlex
import sys
from pathlib import Path

import yaml

# The config keys that change what a rule makes, as dotted paths; {…} are the job's wildcards.
KEYS = {
    "fetch_model": ["models.{model}.source"],
    "pretrain": ["models.base", "seed"],
    "train_sft": ["models.sft", "seed"],
    "train_reward_model": ["models.reward_model", "seed"],
    "prepare_prompts": [
        "prompts.source",
        "prompts.columns",
        "prompts.system",
        "prompts.test_fraction",
        "prompts.max_prompt_length",
        "prompts.decontamination_ngram",
        "mt_bench.questions",
        "seed",
    ],
    "sample_prompts": ["prompts.num_prompts", "prompts.num_test_prompts", "prompts.shard_size", "seed"],
    "import_preferences": ["prompts", "mt_bench.questions", "seed"],
    "generate_completions": ["generate", "seed"],
    "score_completions": ["rank.batch_tokens", "rank.dtype"],
    "build_preferences": [
        "generate.num_completions",
        "rank.strategy",
        "rank.length_penalty",
        "rank.min_margin",
        "rank.truncated",
        "seed",
    ],
    "tokenize_preferences": ["tokenize"],
    "compute_ref_logps": ["logps"],
    "train_policy": [
        "train",
        "logps.temperature",
        "logps.num_shards",
        "runs.{run}",
        "seed",
    ],
    "answer_mt_bench": [
        "mt_bench.questions",
        "mt_bench.max_tokens",
        "mt_bench.temperature",
        "generate.engine",
        "generate.batch_size",
        "generate.dtype",
        "seed",
    ],
    "judge_mt_bench": [
        "mt_bench.questions",
        "mt_bench.references",
        "mt_bench.judge",
        "rank.batch_tokens",
        "rank.dtype",
    ],
    "compute_winrate": ["mt_bench.questions", "mt_bench.judge", "mt_bench.bootstrap_samples", "runs", "seed"],
    "plot_winrate": [],
    "answer_vibe_check": ["vibe_check", "generate.engine", "generate.batch_size", "generate.dtype", "seed"],
    "write_vibe_check": ["vibe_check.prompts", "vibe_check.columns", "runs"],
}
# Wildcards that number the pieces of one artifact: DVC tracks the folder that holds the pieces.
PIECES = ("shard", "part")
METRICS = ("metrics.json", "winrate.json")
PLOTS = ("log.csv", "winrate.png")


def jobs_of_workflow():
    """All jobs that `snakemake` would run if nothing were made yet."""
    from snakemake.api import DAGSettings, OutputSettings, ResourceSettings, SnakemakeApi

    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        SnakemakeApi(OutputSettings(quiet={"all"})) as api,
    ):
        workflow = api.workflow(ResourceSettings(), snakefile=Path("Snakefile"))
        # Snakemake has no call that only builds the graph; drawing it does.
        workflow.dag(DAGSettings(forceall=True)).printrulegraph()
        return [job for job in workflow._workflow.dag.jobs if job.rule.name in KEYS]


def whole(path, job):
    """The path that DVC tracks for an output of `job`: the folder where it is one piece of many."""
    pieces = [name for name in PIECES if name in job.wildcards_dict]
    return str(Path(path).parent) if pieces else str(path)


def stage_of(job):
    """Name of the stage of a job: the file its rule stands in, and what it is about."""
    about = [value for name, value in job.wildcards_dict.items() if name not in (*PIECES, "judge")]
    section = Path(job.rule.snakefile).stem
    if section == "models" and not about:
        about = [Path(job.output.manifest).stem]
    return "-".join([section, *about])


def stages_of(jobs):
    """The stages section of dvc.yaml: a dict in the order in which the stages depend on each other."""
    made_as = {str(path): whole(path, job) for job in jobs for path in job.output}
    grouped = {}
    for job in jobs:
        grouped.setdefault(stage_of(job), []).append(job)
    return {name: _stage(grouped[name], made_as) for name in sorted(grouped)}


def _stage(jobs, made_as):
    made = {str(path) for job in jobs for path in job.output}
    read = {str(path) for job in jobs for path in job.input}
    outputs = sorted({made_as[path] for path in made})
    inputs = {made_as.get(path, path) for path in read} - set(outputs)
    # A model's manifest stands for its directory.
    inputs = {path for path in inputs if f"{path}.json" not in inputs}
    inputs |= {os.path.relpath(job.rule.snakefile) for job in jobs}
    rules = sorted({job.rule.name for job in jobs})
    keys = sorted({key.format(**job.wildcards_dict) for job in jobs for key in KEYS[job.rule.name]})
    stage = {
        "cmd": f"snakemake --allowed-rules {shlex.join(rules)} -- {shlex.join(sorted(made - read))}",
        "deps": sorted(inputs),
    }
    if keys:
        stage["params"] = [{"config.yaml": keys}]
    plain = [path for path in outputs if Path(path).name not in METRICS + PLOTS]
    for kind, paths in (
        ("outs", plain),
        ("metrics", [path for path in outputs if Path(path).name in METRICS]),
        ("plots", [path for path in outputs if Path(path).name in PLOTS]),
    ):
        if paths:
            stage[kind] = paths
    return stage


def main():
    stages = stages_of(jobs_of_workflow())
    sys.stdout.write("# Made by `make dvc.yaml` from the Snakemake workflow; edit that instead.\n")
    yaml.safe_dump({"stages": stages}, sys.stdout, sort_keys=False, width=110)


if __name__ == "__main__":
    main()

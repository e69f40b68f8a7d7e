# Validation of the config, wildcard constraints, and the few functions that inputs and params need.

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir)))

from scripts.common import config as configuration
from scripts.common.config import flags
from scripts.common.errors import InputError
from scripts.common.hashes import Hashes
from scripts.common.imports import code_hash
from scripts.common.sources import local_files, members

try:
    config = configuration.load(config, workflow.configfiles)
except InputError as error:
    raise WorkflowError(str(error))

# Threads that spin while they wait make jobs that share cores several times slower.
shell.prefix("export OMP_WAIT_POLICY=passive; ")

HASHES = Hashes(".snakemake/prefline_hashes.json")

START = "sft"
RUNS = config["runs"]
REWARDS = config["rewards"]
POLICIES = [START] + [f"{run}-{t}" for run in RUNS for t in range(1, RUNS[run]["iterations"] + 1)]
TRAINED = POLICIES[1:]
# Whose completions are ranked for a training; a preference dataset stands in for the start policy's.
RANKED = [] if config["prompts"]["preferences"] else [START]
RANKED += [f"{run}-{t}" for run in RUNS for t in range(1, RUNS[run]["iterations"])]


wildcard_constraints:
    policy="|".join(POLICIES),
    reference="|".join(POLICIES),
    run="|".join(RUNS),
    iteration=r"[1-9]\d*",
    model="|".join(config["models"]),
    reward="|".join(REWARDS),
    shard=r"(train|test)-\d{5}",
    part=r"\d{4}",


def code_of(script):
    """What a script and the modules that it imports do, as a hash: a comment runs no rule again."""
    digest = code_hash(f"scripts/{script}.py")
    return f"code {digest}"


def per_attempt(amount):
    """A resource of which each attempt at a job gets `amount` more: what fails for want of it may yet fit."""
    return lambda wildcards, attempt: amount * attempt


def iteration(policy):
    """How many times a policy was trained in its run: 0 for the start policy."""
    return 0 if policy == START else int(policy.rsplit("-", 1)[1])


def policy_of(run, iteration):
    """The policy that a run has after `iteration` iterations."""
    return f"{run}-{iteration}" if iteration else START


def initial_or_previous(wildcards, role):
    """The policy that is `init` or `reference` of an iteration, as the run's config says."""
    previous = int(wildcards.iteration) - 1
    return policy_of(wildcards.run, previous if RUNS[wildcards.run][role] == "previous" else 0)


def get_init(wildcards):
    return f"results/models/{initial_or_previous(wildcards, 'init')}"


def get_data_policies(wildcards):
    """The policies whose pairs an iteration trains on: the previous one, or all so far."""
    t = int(wildcards.iteration)
    first = 0 if RUNS[wildcards.run]["data"] == "all" else t - 1
    return [policy_of(wildcards.run, number) for number in range(first, t)]


def get_tokenized(wildcards):
    return [f"results/samples/{policy}/tokenized.parquet" for policy in get_data_policies(wildcards)]


def ref_logps_of(policy, reference):
    """All parts of the log-probabilities of a policy's pairs under a reference."""
    parts = range(config["logps"]["num_shards"])
    return [f"results/samples/{policy}/ref_logps/{reference}/{part:04d}.parquet" for part in parts]


def get_ref_logps(wildcards):
    """All parts of the first policy's pairs, then of the second's: the order of get_tokenized."""
    reference = initial_or_previous(wildcards, "reference")
    return [path for policy in get_data_policies(wildcards) for path in ref_logps_of(policy, reference)]


def pick(section, *keys):
    """Some keys of a config section."""
    return {key: config[section][key] for key in keys}


def engine_settings():
    """The config values of what runs the policies, less those of engines that are not in use."""
    section = config["generate"]
    starts_vllm = section["engine"] == "vllm" or section["engine"] == "server" and not section["servers"]
    return {
        **pick("generate", "engine", "dtype", "seed_per"),
        "vllm": section["vllm"] if starts_vllm else {},
        "served_model": section["served_model"] if section["engine"] == "server" else None,
    }


def of_kind(sections, *kinds):
    """The names of the `sections` of some kinds, as a pattern; one that matches nothing if there are none."""
    return "|".join(name for name in sections if sections[name]["kind"] in kinds) or "(?!)"


def rewards_of_kind(kind):
    """The names of the rewards of a kind, as a pattern."""
    return of_kind(REWARDS, kind)


def rewards_of_model(model):
    """What a model is to score as: (kind, head weights) of every reward that names it."""
    sections = [section for section in REWARDS.values() if section.get("model") == model]
    return [(section["kind"], section.get("head_weights")) for section in sections]


def get_reward_model(wildcards):
    """The model that a reward names, as inputs; none if it names none."""
    model = REWARDS[wildcards.reward]["model"]
    if model is None:
        return {}
    return {"model": ancient(f"results/models/{model}"), "manifest": f"results/models/{model}.json"}


def reward_settings(wildcards, *keys):
    """Some keys of a reward's section."""
    return {key: REWARDS[wildcards.reward][key] for key in keys}


def reward_weighting():
    """How the rewards are added up."""
    keys = ("kind", "weight", "normalize")
    return {"weighting": {name: {key: REWARDS[name][key] for key in keys} for name in sorted(REWARDS)}}


def benchmark_settings(wildcards):
    """A benchmark's section without its kind."""
    section = config["benchmarks"][wildcards.benchmark]
    return {key: value for key, value in section.items() if key != "kind"}


def task_files(benchmark):
    """All files of a benchmark's task folder: the tasks and their data."""
    folder = config["benchmarks"][benchmark]["include_path"]
    return [] if folder is None else members(folder)


def regression_data(wildcards):
    """The file that a benchmark's length-controlled win rate needs, as a list; none if it is left out."""
    path = config["benchmarks"][wildcards.benchmark]["regression_data"]
    return [] if path is None else [path]


def given_annotations(wildcards):
    """The file of annotations that a benchmark takes, as a list; none if a judge makes them."""
    return [value for key, value in benchmark_settings(wildcards).items() if key == "annotations"]


def get_annotations(wildcards):
    """A policy's annotations, made by a judge or elsewhere."""
    made = f"results/benchmarks/{wildcards.benchmark}/annotations/{wildcards.policy}.jsonl"
    return ancient(given_annotations(wildcards)) or made


def function_file(reward):
    """The file that a reward's function stands in."""
    return REWARDS[reward]["function"].rsplit(":", 1)[0]


def engine_gpus():
    """How many GPUs a job that asks a policy takes: none where servers elsewhere run it."""
    section = config["generate"]
    return 0 if section["engine"] == "server" and section["servers"] else 1


def contents_of(*sources):
    """What local files hold, as a hash; for data on the hub the name says it.

    Data is an `ancient` input whose content is a param: a checkout that changes it may well leave it older
    than what was made from the data before.
    """
    return f"data {HASHES.together(local_files(*sources))}"


def shards(split):
    """The names of the prompt shards of a split: as many as hold the prompts that the config asks for."""
    number = config["prompts"]["num_prompts" if split == "train" else "num_test_prompts"]
    return [f"{split}-{shard:05d}" for shard in range(-(-number // config["prompts"]["shard_size"]))]


ALL_SHARDS = shards("test") + shards("train")


def source_files(wildcards):
    """The files of a local model directory, so that a change of any of them is seen."""
    return members(config["models"][wildcards.model]["source"])


def start_of(model):
    """Inputs of a training: the model it starts from, and its local data."""
    section = config["models"][model]
    return {
        "model": ancient(f"results/models/{section['init']}"),
        "manifest": f"results/models/{section['init']}.json",
        "data": ancient(local_files(section["train_data"], section["eval_data"])),
    }


def settings_of(model):
    """The flags of a training."""
    section = config["models"][model]
    keys = ("train_data", "eval_data", "columns", "max_length")
    return flags({key: section[key] for key in keys}, section["training"], seed=config["seed"])

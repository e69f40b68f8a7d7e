# Validation of the config, wildcard constraints, and the few functions that inputs and params need.

import json
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(workflow.basedir)))

from scripts.common import config as configuration
from scripts.common.config import flags
from scripts.common.errors import InputError
from scripts.common.hashes import Hashes
from scripts.common.imports import code_hash
from scripts.common.judges.settings import names_of as judge_names
from scripts.common.sources import local_files, members, parse_url

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
# Whose pairs train a policy, and whose completions are ranked: a preference dataset stands in for the start's.
PAIRED_RUNS = [run for run in RUNS if configuration.method_of(config, run) in ("preference", "kto")]
DATA_POLICIES = [START] if PAIRED_RUNS else []
DATA_POLICIES += [f"{run}-{t}" for run in PAIRED_RUNS for t in range(1, RUNS[run]["iterations"])]
RANKED = [name for name in DATA_POLICIES if name != START or not config["prompts"]["preferences"]]
# Who is held against whom by a judge: a policy's name is its match with the start policy, and with _single
# it is judged alone.
MATCHES = {policy: (policy, START) for policy in TRAINED}
MATCHES |= {f"{a}_vs_{b}": (a, b) for number, a in enumerate(TRAINED) for b in TRAINED[number + 1 :]}
SINGLE = {f"{policy}_single": (policy, None) for policy in POLICIES}
LLM_JUDGES = config["mt_bench"]["judges"]
JUDGES = judge_names(config["mt_bench"])
PAID = [name for name in JUDGES if name in LLM_JUDGES and LLM_JUDGES[name]["servers"]]
MODES = config["mt_bench"]["modes"]
JUDGED = list(MATCHES) if "pairwise-all" in MODES else TRAINED


wildcard_constraints:
    policy="|".join(POLICIES),
    reference="|".join(POLICIES),
    run="|".join(RUNS),
    iteration=r"[1-9]\d*",
    model="|".join(config["models"]),
    reward="|".join(REWARDS),
    shard=r"(train|test)-\d{5}",
    part=r"\d{4}",
    match="|".join([*MATCHES, *SINGLE]),


def needed_models():
    """The models, policies of runs aside, that the start policy and the rewards are or come of, in config's order."""
    found, waiting = set(), [START, *(section.get("model") for section in REWARDS.values())]
    for name in waiting:
        if name is not None and name not in found:
            found.add(name)
            if config["models"][name]["source"] is None:
                waiting.append(config["models"][name]["init"])
    return [name for name in config["models"] if name in found]


NEEDED = needed_models()
# What has a log.csv.
TRAININGS = [name for name in NEEDED if config["models"][name]["source"] is None] + TRAINED


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


def peft_of(model):
    """The adapters (config) that a policy or another model is trained with; None without, and for finished ones."""
    if model in TRAINED:
        return configuration.training(config, model.rsplit("-", 1)[0])["peft"]
    section = config["models"][model]
    return section["training"]["peft"] if section["source"] is None else None


def trained(model):
    """What the training of a model writes: its directory, or that of adapters, which merge_adapter takes."""
    return f"results/{'adapters' if peft_of(model) else 'models'}/{model}"


def get_init(wildcards):
    return f"results/models/{initial_or_previous(wildcards, 'init')}"


def get_start(wildcards):
    """The model that the training of {model}, a policy or another model, starts from."""
    if wildcards.model in config["models"]:
        return f"results/models/{config['models'][wildcards.model]['init']}"
    run, number = wildcards.model.rsplit("-", 1)
    return get_init(SimpleNamespace(run=run, iteration=number))


def get_reference(wildcards):
    return f"results/models/{initial_or_previous(wildcards, 'reference')}"


def runs_of_methods(*methods):
    """The names of the runs that these methods train, all parameters of them, as a pattern; one that matches nothing
    if there are none."""
    chosen = [run for run in RUNS if configuration.method_of(config, run) in methods]
    return "|".join(run for run in chosen if not peft_of(f"{run}-1")) or "(?!)"


def get_data_policies(wildcards):
    """The policies whose pairs an iteration trains on: the previous one, or all so far."""
    t = int(wildcards.iteration)
    first = 0 if RUNS[wildcards.run]["data"] == "all" else t - 1
    return [policy_of(wildcards.run, number) for number in range(first, t)]


def get_tokenized(wildcards):
    return [f"results/samples/{policy}/tokenized.parquet" for policy in get_data_policies(wildcards)]


def get_prompts(wildcards):
    """The prompts that an iteration samples from, and the held-out ones, which are the same for all."""
    policies = get_data_policies(wildcards)
    train = [
        f"results/samples/{policy}/prompts/{shard}.parquet"
        for policy in policies
        for shard in shards("train")
    ]
    return train + [f"results/samples/{policies[-1]}/prompts/{shard}.parquet" for shard in shards("test")]


def ref_logps_of(policy, reference):
    """All parts of the log-probabilities of a policy's pairs under a reference."""
    parts = range(config["logps"]["num_shards"])
    return [f"results/samples/{policy}/ref_logps/{reference}/{part:04d}.parquet" for part in parts]


def get_ref_logps(wildcards):
    """All parts of the first policy's pairs, then of the second's: the order of get_tokenized."""
    reference = initial_or_previous(wildcards, "reference")
    return [path for policy in get_data_policies(wildcards) for path in ref_logps_of(policy, reference)]


def get_references(wildcards):
    """The start policy and, where it is another one, the reference of an iteration's loss."""
    names = dict.fromkeys([START, initial_or_previous(wildcards, "reference")])
    return [f"results/models/{name}" for name in names]


def get_scale_by(wildcards):
    """The pairs of a run's first iteration, where their rewards set the scale of all of its iterations."""
    by_run = configuration.training(config, wildcards.run).get("reward_scaling") == "by_run"
    return [f"results/samples/{START}/tokenized.parquet"] if by_run else []


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


def models_of_rewards():
    """The directories of all models that rewards name."""
    named = {section["model"] for section in REWARDS.values() if section.get("model")}
    return [f"results/models/{model}" for model in sorted(named)]


def files_of_rewards(*kinds):
    """The files that rewards of these kinds read: rubrics of judges, and what functions stand in."""
    sections = [section for section in REWARDS.values() if section["kind"] in kinds]
    read = [section.get("rubric") or section["function"].rsplit(":", 1)[0] for section in sections]
    return sorted(set(read))


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


def judgments(judge, matches):
    """A judge's files of some matches."""
    return [f"results/mt_bench/judgments/{judge}/{match}.jsonl" for match in matches]


def evaluations():
    """What shows how good the policies are, by the modes of judging."""
    ratings = ["results/ratings.csv"] if "single" in MODES else []
    return ["results/winrate.png", "results/winrate.csv", *ratings]


def get_answers(wildcards):
    """The answers that a judge compares, or the one policy's that it rates."""
    names = (MATCHES | SINGLE)[wildcards.match]
    return [f"results/mt_bench/answers/{policy}.jsonl" for policy in names if policy is not None]


def get_judge_model(wildcards):
    """The model of a judge that runs on this machine, as inputs; none for another."""
    model = LLM_JUDGES[wildcards.judge]["model"]
    if model is None:
        return {}
    return {"model": ancient(f"results/models/{model}"), "manifest": f"results/models/{model}.json"}


def judge_settings(wildcards):
    """What of a judge's section shapes its verdicts, as flags."""
    keys = ("kind", "dtype", "served_model", "max_tokens")
    section = LLM_JUDGES[wildcards.judge]
    return flags({key: section[key] for key in keys}, seed=config["seed"])


def matches_of(judge):
    """The matches that a judge is asked about, as lists of policies."""
    held = JUDGED if judge == JUDGES[0] else TRAINED
    return [list(MATCHES[match]) for match in held] + [[policy] for policy in POLICIES if "single" in MODES]


def of_judge(key):
    """A value of a judge's section that changes no verdict, as a resource: a new one runs nothing again."""

    def value(wildcards):
        found = LLM_JUDGES[wildcards.judge][key]
        return found if isinstance(found, str) else json.dumps(found)

    return value


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
    fetched = [source for source in sources if source is not None and parse_url(source)]
    return " ".join([f"data {HASHES.together(local_files(*sources))}", *fetched])


def mt_bench_file(key):
    """The path of a file that `mt_bench` names: where it is fetched to, or itself."""
    source = config["mt_bench"][key]
    return f"results/mt_bench/data/{key}.jsonl" if parse_url(source) else source


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
    training = configuration.of_job(section["training"])
    return flags({key: section[key] for key in keys}, training, seed=config["seed"])

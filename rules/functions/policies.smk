# What the trainings of policies and other models read, and where it stands.

# What a training is given by profiles and --set-resources, and the flags of these, as ENGINE is of engines; then
# where its results go.
TRAINING = {"gpu": 1, "nodes": 1, "gradient_checkpointing": "false", "parallel": "ddp", "wandb_project": ""}
TRAINING_FLAGS = r"""--per-device-train-batch-size {resources.per_device_train_batch_size:q} \
            --gradient-checkpointing {resources.gradient_checkpointing:q} \
            --save-steps {resources.save_steps:q} \
            --wandb-project={resources.wandb_project:q} \
            --out {output.model:q} \
            --manifest {output.manifest:q} \
            --metrics {output.metrics:q} \
            --log-csv {output.log_csv:q}
"""

# The models, policies of runs aside, that the start policy and the rewards are or come of.
NEEDED = configuration.needed_models(config, [START, *map(endpoints.model_of, REWARDS.values())])
# What has a log.csv.
TRAININGS = [name for name in NEEDED if config["models"][name]["source"] is None] + TRAINED


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


def losses_of(run):
    """The files of the losses of the user's own that a run on pairs is trained by."""
    return losses.own_files(configuration.training(config, run)["loss_type"])


def peft_of(model):
    """The adapters (config) that a policy or another model is trained with; None without, and for finished ones."""
    if model in TRAINED:
        return configuration.training(config, model.rsplit("-", 1)[0])["peft"]
    section = config["models"][model]
    return section["training"]["peft"] if section["source"] is None else None


def trained_here(model):
    """The name of a model that is trained here, as a pattern; one that matches nothing for a finished one."""
    return model if config["models"][model]["source"] is None else "(?!)"


def trained(model):
    """What the training of {model} writes: its directory, or that of adapters, which merge_adapter takes."""
    return f"results/{'adapters' if peft_of(model) else 'models'}/{{model}}"


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


def runs_of_methods(*methods, adapters=False):
    """The names of the runs that these methods train, all parameters of them or adapters, as a pattern; one that
    matches nothing if there are none."""
    chosen = [run for run in RUNS if configuration.method_of(config, run) in methods]
    return "|".join(run for run in chosen if bool(peft_of(f"{run}-1")) == adapters) or "(?!)"


def get_data_policies(wildcards):
    """The policies whose pairs an iteration trains on: the previous one, or all so far."""
    t = int(wildcards.iteration)
    first = 0 if RUNS[wildcards.run]["data"] == "all" else t - 1
    return [policy_of(wildcards.run, number) for number in range(first, t)]


def iterations_of(*methods):
    """The iterations (run, iteration) of all runs that these methods train."""
    return [
        SimpleNamespace(run=run, iteration=t)
        for run in RUNS
        if configuration.method_of(config, run) in methods
        for t in range(1, RUNS[run]["iterations"] + 1)
    ]


ONLINE_DATA = {name for each in iterations_of("ppo", "rloo", "grpo") for name in get_data_policies(each)}


def shards_of(policy, kind):
    """The shards of a policy's prompts, completions or rewards that the workflow needs: the held-out ones, which
    measure drift, and those of training prompts where a policy learns from them."""
    needs_all = policy in RANKED or (kind == "prompts" and policy in ONLINE_DATA)
    return ALL_SHARDS if needs_all else shards("test")


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


def source_files(wildcards):
    """The files of a local model directory and a chat template, so that a change of any of them is seen."""
    section = config["models"][wildcards.model]
    return members(section["source"]) + local_files(section.get("chat_template"))


def start_of(wildcards):
    """Inputs of the training of {model}: the model it starts from, and its local data."""
    return {
        "model": ancient(get_start(wildcards)),
        "manifest": f"{get_start(wildcards)}.json",
        "data": ancient(local_files(*data_of(wildcards.model))),
    }


def data_of(model):
    """The data sources of a training."""
    return [config["models"][model][key] for key in ("train_data", "eval_data")]


def settings_of(wildcards):
    """The flags of the training of {model}."""
    section = config["models"][wildcards.model]
    keys = ("train_data", "eval_data", "columns", "max_length")
    training = configuration.of_job(section["training"])
    return flags({key: section[key] for key in keys}, training, seed=config["seed"])

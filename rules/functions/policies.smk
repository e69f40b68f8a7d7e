# Inputs of the trainings of policies, by run and iteration.


def iteration(policy):
    """Return how many times a policy was trained in its run: 0 for one that no run trained."""
    return int(policy.rsplit("-", 1)[1]) if policy in TRAINED else 0


def policy_of(run, iteration):
    """Return the policy that a run has after `iteration` iterations."""
    return f"{run}-{iteration}" if iteration else START


def initial_or_previous(wildcards, role):
    """Return the policy that is `init` or `reference` of an iteration, by the run's config."""
    previous = int(wildcards.iteration) - 1
    return policy_of(wildcards.run, previous if RUNS[wildcards.run][role] == "previous" else 0)


def losses_of(run):
    """Return the files of the user's losses that train a run on pairs."""
    return losses.own_files(configuration.training(config, run)["loss_type"])


def get_init(wildcards):
    return f"results/models/{initial_or_previous(wildcards, 'init')}"


def get_start(wildcards):
    """Return the model that the training of {model}, a policy or another model, starts from."""
    if wildcards.model in config["models"]:
        return f"results/models/{config['models'][wildcards.model]['init']}"
    run, number = naming.chain_of(wildcards.model), iteration(wildcards.model)
    return get_init(SimpleNamespace(run=run, iteration=number))


def get_reference(wildcards):
    return f"results/models/{initial_or_previous(wildcards, 'reference')}"


def runs_of_methods(*methods, adapters=False):
    """Return the names of the runs that these methods train, all parameters of them or adapters, as a
    pattern; one that matches nothing if there are none.
    """
    chosen = [run for run in RUNS if configuration.method_of(config, run) in methods]
    return "|".join(run for run in chosen if bool(peft_of(f"{run}-1")) == adapters) or "(?!)"


def get_data_policies(wildcards):
    """Return the policies whose pairs an iteration trains on: the previous one, or all so far."""
    t = int(wildcards.iteration)
    first = 0 if RUNS[wildcards.run]["data"] == "all" else t - 1
    return [policy_of(wildcards.run, number) for number in range(first, t)]


def iterations_of(*methods):
    """Return the iterations (run, iteration) of all runs that these methods train."""
    return [
        SimpleNamespace(run=run, iteration=t)
        for run in RUNS
        if configuration.method_of(config, run) in methods
        for t in range(1, RUNS[run]["iterations"] + 1)
    ]


ONLINE_DATA = {name for each in iterations_of("ppo", "rloo", "grpo") for name in get_data_policies(each)}


def shards_of(policy, kind):
    """Return the shards of a policy's prompts, completions or rewards that the workflow needs: the held-out
    ones, which measure drift, and those of training prompts where a policy learns from them.
    """
    needs_all = policy in RANKED or (kind == "prompts" and policy in ONLINE_DATA)
    return ALL_SHARDS if needs_all else shards("test")


def get_tokenized(wildcards):
    return [f"results/samples/{policy}/tokenized.parquet" for policy in get_data_policies(wildcards)]


def get_prompts(wildcards):
    """Return the prompts that an iteration samples from, and the held-out ones, which are the same for all."""
    policies = get_data_policies(wildcards)
    train = [
        f"results/samples/{policy}/prompts/{shard}.parquet"
        for policy in policies
        for shard in shards("train")
    ]
    return train + [f"results/samples/{policies[-1]}/prompts/{shard}.parquet" for shard in shards("test")]


def ref_logps_of(policy, reference):
    """Return all parts of the log-probabilities of a policy's pairs under a reference."""
    parts = range(config["logps"]["num_shards"])
    return [f"results/samples/{policy}/ref_logps/{reference}/{part:04d}.parquet" for part in parts]


def get_ref_logps(wildcards):
    """Return all parts of the first policy's pairs, then of the second's: the order of get_tokenized."""
    reference = initial_or_previous(wildcards, "reference")
    return [path for policy in get_data_policies(wildcards) for path in ref_logps_of(policy, reference)]


def get_references(wildcards):
    """Return the start policy and, where it is another one, the reference of an iteration's loss."""
    names = dict.fromkeys([START, initial_or_previous(wildcards, "reference")])
    return [f"results/models/{name}" for name in names]


def get_scale_by(wildcards):
    """Return the pairs of a run's first iteration if their rewards set the scale of all iterations."""
    by_run = configuration.training(config, wildcards.run).get("reward_scaling") == "by_run"
    return [f"results/samples/{START}/tokenized.parquet"] if by_run else []

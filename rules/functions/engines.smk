# Engines and servers that run policies and judges.


def engine_settings():
    """Return the config values of what runs the policies, less those of engines that are not in use."""
    chosen = config["generate"]
    asks = chosen["endpoint"] if chosen["engine"] == "server" else None
    starts_vllm = chosen["engine"] == "vllm" or chosen["engine"] == "server" and not asks
    return {
        **section("generate", "engine", "dtype", "seed_per"),
        "vllm": chosen["vllm"] if starts_vllm else {},
        "served_model": asks and asks["model"],
    }


# The samplers of the runs that sample while they train: transformers, vllm.
SAMPLERS = {configuration.training(config, run).get("sampler") for run in config["runs"]}


def engine_gpus():
    """Return how many GPUs a job that asks a policy takes: none where servers elsewhere run it."""
    section = config["generate"]
    return 0 if section["engine"] == "server" and section["endpoint"] else 1


# Resources of a job that runs a language model, which rules/machine.smk fits to the machine, and their flags. They
# change its speed and not its results: prefline/engines/pace.py. Rules add the flags in parentheses; without
# these `snakemake --lint` takes them for part of a path.
ENGINE = {
    "gpu": engine_gpus(),
    "nodes": 1,
    "mem_mb": per_attempt(3_000),
    "batch_size": 256,
    "tensor_parallel_size": 1,
    "gpu_memory_percent": 90,
    "max_num_batched_tokens": 0,
    "endpoint": json.dumps(config["generate"]["endpoint"]),
}
ENGINE_FLAGS = r"""--batch-size {resources.batch_size:q} \
            --tensor-parallel-size {resources.tensor_parallel_size:q} \
            --gpu-memory-percent {resources.gpu_memory_percent:q} \
            --max-num-batched-tokens {resources.max_num_batched_tokens:q} \
            --endpoint {resources.endpoint:q}
"""


def asking(endpoint_of):
    """Return ENGINE of a job that asks the endpoint which endpoint_of(wildcards) names, not the policy's."""
    return ENGINE | {
        "gpu": lambda wildcards: int(endpoint_of(wildcards)["kind"] == "vllm"),
        "endpoint": lambda wildcards: json.dumps(endpoint_of(wildcards)),
    }


def check_keys(jobs):
    """Raise InputError if the environment lacks the key of a server or a tracker that planned jobs use.

    Leaves out the servers of rewards and judges, whose keys are in the table of the checks.
    """
    from prefline.servers import endpoint
    from prefline.training import trackers

    tried = {ASKERS[asker]["endpoint"]["name"] for asker in HOSTED}
    named = {(job.resources.get("endpoint"), job.resources.get("endpoints")) for job in jobs}
    for one, several in named:
        asked = [json.loads(one)] if one else []
        for values in asked + list(json.loads(several or "{}").values()):
            if values is not None and values["name"] not in tried:
                endpoint.Endpoint(**values).key()
    for project in {job.resources.get("wandb_project") for job in jobs}:
        trackers.check(project)


def check_sampler(jobs):
    """Raise InputError if runs sample by a vLLM that this environment lacks, before their start is trained.

    With --sdm, each rule has a pinned environment.
    """
    before = {"check_model", "train_online", "train_online_adapter"}
    if workflow.deployment_settings.deployment_method or before.isdisjoint(job.rule.name for job in jobs):
        return
    if "vllm" in SAMPLERS:
        device.check_sampler()


def served(section):
    """Return the model that a config section names, itself or by its endpoint, as inputs; [] if remote."""
    model = endpoints.model_of(section)
    if model is None:
        return {}
    return {"model": ancient(f"results/models/{model}"), "manifest": f"results/models/{model}.json"}

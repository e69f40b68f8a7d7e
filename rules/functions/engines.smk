# What runs policies and judges, or is asked for their words.


def engine_settings():
    """The config values of what runs the policies, less those of engines that are not in use."""
    chosen = config["generate"]
    asks = chosen["endpoint"] if chosen["engine"] == "server" else None
    starts_vllm = chosen["engine"] == "vllm" or chosen["engine"] == "server" and not asks
    return {
        **section("generate", "engine", "dtype", "seed_per"),
        "vllm": chosen["vllm"] if starts_vllm else {},
        "served_model": asks and asks["model"],
    }


def engine_gpus():
    """How many GPUs a job that asks a policy takes: none where servers elsewhere run it."""
    section = config["generate"]
    return 0 if section["engine"] == "server" and section["endpoint"] else 1


# What a job that runs a language model is given by profiles and --set-resources, and the flags of these. They are
# resources, since they decide how fast it goes and not what it makes: prefline/engines/pace.py. Rules add the flags
# in parentheses, without which `snakemake --lint` takes them for a part of a path.
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
    """ENGINE of a job that asks the endpoint which endpoint_of(wildcards) gives, in place of a policy's."""
    return ENGINE | {
        "gpu": lambda wildcards: int(endpoint_of(wildcards)["kind"] == "vllm"),
        "endpoint": lambda wildcards: json.dumps(endpoint_of(wildcards)),
    }


def served(section):
    """The model that a section of the config names, itself or by its endpoint, as inputs; none of elsewhere."""
    model = endpoints.model_of(section)
    if model is None:
        return {}
    return {"model": ancient(f"results/models/{model}"), "manifest": f"results/models/{model}.json"}

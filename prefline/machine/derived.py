"""Derive the resources of a job from the sizes of its models and the GPUs of the node.

A rule's own values are the most that a job gets of rows and tokens at once, and the least of memory. Values
that the config or the command line sets are unchanged, and the others are chosen to fit them:

- a training gets one GPU, or all of the node if it does not fit one; then it is sharded if it must be. It
  keeps activations as long as a row fits, and recomputes them otherwise.
- vLLM gets as many GPUs as its weights and one whole context need.
- scoring and transformers' decoding get fewer tokens and rows at once.

Where not even the smallest setting fits, the job gets that: results/checks refuse it. Where the card is not
known, only the machine's memory is derived.
"""

import dataclasses
import json
from pathlib import Path

from prefline.machine.memory import fit, host, inference, readers, sizes
from prefline.machine.memory.training import Training, parts

METHODS = {"base": "pretrain", "sft": "sft", "reward_model": "reward_model"}
ROWS = "per_device_train_batch_size"
# Methods that need all rows of a device's step at once.
WHOLE_STEP = ("kto", "ppo")
# Tokens of a judge's conversation, and of a question of lm-evaluation-harness with its examples.
OF_JUDGE, OF_QUESTION = 8192, 4096
# Memory of fetch_model, in MB, for a model of unknown size; with pickled weights it is read whole.
TO_FETCH, TO_CONVERT = 10_000, 40_000


class NotFetched(Exception):
    """The size of a model is not known before it is fetched."""


def root(config, name):
    """Return the finished model (str) that a policy or another model of the config descends from."""
    name = name if name in config["models"] else "sft"
    while config["models"][name]["source"] is None:
        name = config["models"][name]["init"]
    return name


def size_of(config, name, models=Path("results/models")):
    """Return the sizes.Model of a model's name; None if a finished one has no config.json.

    A model has the size of what it was trained from. Raises NotFetched.
    """
    start = root(config, name)
    source = config["models"][start]["source"]
    if source.startswith("hub:"):
        folders = [folder for folder in (models / start, models / name) if folder.is_dir()]
        found = sizes.of(folders[0]) if folders else sizes.known(source)
        if found is None and not folders:
            raise NotFetched(source)
        return found
    return sizes.of(source)


def to_fetch(config, name):
    """Return the machine's memory (MB) of fetch_model."""
    model = config["models"][name]
    try:
        size = size_of(config, name)
    except NotFetched:
        size = None
    if model.get("pickled_weights"):
        return TO_CONVERT if size is None else host.megabytes(host.LIGHT + 4 * size.parameters)
    return TO_FETCH if size is None else host.megabytes(host.fetching(size))


def resources(config, node, own, fixed, roles, wildcards, trains=None):
    """Return the derived resources (dict) of a job; those that it does not hold keep the rule's values.

    config: as loaded; node: a Node; own: {name: value} of the rule, `endpoint` of engines with it; fixed:
    those that are set elsewhere; roles: {input: names of models} that the job reads; wildcards: the job's
    (dict); trains: (method, training keys) of the model that it trains or merges. Raises NotFetched.
    """
    held = {role: [size_of(config, name) for name in names] for role, names in roles.items()}
    held = {role: [size for size in found if size is not None] for role, found in held.items()}
    if not any(held.values()):
        return {}
    if "gres" in fixed:
        fixed = fixed | {"gpu": gpus_of(fixed["gres"])}
    if not fixed.get("gpu", own["gpu"]):
        node = dataclasses.replace(node, gpus=0)
    if ROWS in own:
        found = _of_training(config, node, own, fixed, held, wildcards, trains)
    else:
        found = _of_reader(reader(config, own | fixed, held, wildcards, trains), node, fixed)
    if node.gpus == 0:
        found["gpu"] = 0
    found["mem_mb"] = max(own["mem_mb"], host.megabytes(found["mem_mb"]))
    return found


def gpus_of(gres):
    """Return the GPUs (int) of each node that Slurm's gres asks for: gpu, gpu:8, gpu:a100 or gpu:a100:8."""
    number = gres.rsplit(":", 1)[-1]
    return int(number) if number.isdecimal() else 1


def mismatched(config, settings, roles, wildcards):
    """Return why a job's GPUs cannot share the model that vLLM serves, as a sentence; None if they can.

    settings: its resources (dict) as the job gets them; the rest is as in `resources`.
    """
    devices, gpus = settings.get("tensor_parallel_size"), settings.get("gpu")
    if not gpus or not isinstance(gpus, int) or not isinstance(devices, int):
        return None
    try:
        sizes_read = [size_of(config, name) for names in roles.values() for name in names]
    except NotFetched:
        return None
    held = {"model": [size for size in sizes_read if size is not None]}
    if not held["model"] or reader(config, settings, held, wildcards, None).work != "vllm":
        return None
    if devices > gpus * settings.get("nodes", 1):
        return f"tensor_parallel_size is {devices}, but the job has {gpus} GPU{'s' * (gpus > 1)}"
    model = max_of(held)
    if model.heads % devices:
        heads = f"the {model.heads} attention heads of {model.name}"
        return f"tensor_parallel_size {devices} does not divide {heads}"
    return None


def too_large(config, node, settings, roles, wildcards, trains):
    """Return what refuses a job that does not fit the node's GPUs, after "RULE needs "; None if it may fit.

    settings: its resources (dict) as the job gets them; the rest is as in `resources`.
    """
    if not node.gpu_memory or not isinstance(settings.get("gpu"), int) or not settings["gpu"]:
        return None
    try:
        held = {role: [size_of(config, name) for name in names] for role, names in roles.items()}
    except NotFetched:
        return None
    held = {role: [size for size in found if size is not None] for role, found in held.items()}
    if not held.get("model"):
        return None
    if ROWS not in settings:
        job = reader(config, settings, held, wildcards, trains)
        return readers.complaint(job, node.gpu_memory, node.gpus or 1)
    job = training(config, settings, held, wildcards, trains)
    devices = settings["gpu"] * settings.get("nodes", 1)
    job = dataclasses.replace(job, devices=devices, parallel=settings["parallel"])
    words = fit.complaint(job, node.gpu_memory, node.gpus or 1)
    if words and job.method in WHOLE_STEP:
        words += f"; {job.method} has all rows of a step at once, so a smaller global_batch_size helps, too"
    return words


def max_of(held):
    """Return the largest of all models of a job."""
    return max((size for found in held.values() for size in found), key=lambda size: size.parameters)


def longest(config):
    """Return the tokens (int) of the longest conversation that a policy answers, its answer included."""
    answers = [config["generate"]["max_tokens"], 2 * config["mt_bench"]["max_tokens"]]
    answers += [config["vibe_check"]["max_tokens"]]
    answers += [benchmark.get("max_tokens") or 0 for benchmark in config["benchmarks"].values()]
    return config["prompts"]["max_prompt_length"] + max(answers)


def pair_lengths(config):
    """Return the most tokens (int, int) of a pair's prompt and of its longer completion.

    Percentiles and null are not known yet: prompts and completions of the config's lengths count for them.
    """
    keys = config["tokenize"]
    prompt, completion = (
        keys[name] if isinstance(keys[name], int) else most
        for name, most in (
            ("max_prompt_length", config["prompts"]["max_prompt_length"]),
            ("max_completion_length", config["generate"]["max_tokens"]),
        )
    )
    whole = keys["max_length"] if isinstance(keys["max_length"], int) else prompt + completion
    prompt = min(prompt, whole - 1)
    return prompt, min(completion, whole - prompt)


def training(config, own, held, wildcards, trains):
    """Return the memory.training.Training of a job on one GPU, with the rule's own settings."""
    method, keys = trains
    if method in METHODS.values():
        lengths = 0, config["models"][wildcards["model"]]["max_length"]
    elif method in ("preference", "kto"):
        lengths = pair_lengths(config)
    else:
        lengths = config["prompts"]["max_prompt_length"], keys["max_completion_length"]
    needs_reference = method in WHOLE_STEP or (method in ("rloo", "grpo") and keys["beta"])
    rewards = [reward for _, reward in sorted(config["rewards"].items()) if reward.get("model")]
    dtypes = {reward["model"]: reward["dtype"] for reward in rewards}
    scorers = zip(held.get("reward_models", ()), (dtypes[name] for name in sorted(dtypes)), strict=False)
    return Training(
        held["model"][0],
        method,
        *lengths,
        rows=own[ROWS],
        global_batch_size=keys["global_batch_size"],
        dtype=keys["dtype"],
        optim=keys["optim"],
        peft=keys["peft"],
        gradient_checkpointing=own["gradient_checkpointing"] == "true",
        reference=held["reference"][0] if needs_reference and held.get("reference") else None,
        scorers=tuple(scorers),
        sampler=keys.get("sampler", "transformers"),
    )


def _of_training(config, node, own, fixed, held, wildcards, trains):
    if not held.get("model"):
        return {"mem_mb": 0}
    settings = own | fixed
    job = training(config, settings, held, wildcards, trains)
    if node.gpus == 0:
        job = dataclasses.replace(job, gpu=False)
        return {"mem_mb": host.LIGHT + fit.total(parts(job))}
    if node.gpu_memory is not None:
        job = _fitted(job, node, fixed)
    elif settings["gpu"] > 1:
        job = dataclasses.replace(job, devices=settings["gpu"], parallel=settings["parallel"])
    of_node = dataclasses.replace(job, devices=-(-job.devices // fixed.get("nodes", 1)))
    of_sampler = {}
    if job.sampler == "vllm" and node.gpu_memory is not None:
        of_sampler["gpu_memory_percent"] = fit.sampler_percent(job, node.gpu_memory)
    return {
        **of_sampler,
        "gpu": settings["gpu"] if "gpu" in fixed else job.devices,
        "parallel": job.parallel,
        ROWS: job.rows if job.rows == settings[ROWS] else job.at_once,
        "gradient_checkpointing": str(job.gradient_checkpointing).lower(),
        "mem_mb": host.training(of_node),
    }


def _fitted(job, node, fixed):
    """Return a Training with the first settings that fit a GPU of the node; the last if none do."""
    for devices, parallel in _ways(job, node, fixed):
        for again in (False, True):
            if fixed.get("gradient_checkpointing", str(again).lower()) != str(again).lower():
                continue
            changed = dataclasses.replace(
                job, devices=devices, parallel=parallel, gradient_checkpointing=again
            )
            rows = min(job.rows, fit.largest_rows(changed, node.gpu_memory))
            if ROWS in fixed:
                rows = job.rows if fit.fits(parts(changed), node.gpu_memory) else 0
            if rows and (job.method not in WHOLE_STEP or rows >= min(job.rows, changed.share)):
                return dataclasses.replace(changed, rows=rows)
    rows = job.rows if ROWS in fixed or job.method in WHOLE_STEP else 1
    return dataclasses.replace(changed, rows=rows)


def _ways(job, node, fixed):
    """Return [(devices, parallel)] that a training may take, the one to prefer first."""
    most = max(number for number in range(1, (node.gpus or 1) + 1) if job.global_batch_size % number == 0)
    numbers = [fixed["gpu"] * fixed.get("nodes", 1)] if fixed.get("gpu") else sorted({1, most})
    shardable = not job.quantized and job.method != "ppo" and not job.optim.startswith("paged")
    shardable = shardable and "8bit" not in job.optim
    ways = [(number, "ddp") for number in numbers]
    ways += [(number, "fsdp2") for number in numbers if number > 1 and shardable]
    if "parallel" in fixed:
        # A training on one GPU is the same whatever the name is.
        ways = [(number, fixed["parallel"]) for number in numbers]
    return ways


def reader(config, settings, held, wildcards, trains):
    """Return the readers.Reader of a job that only reads a model, with the resources `settings` (dict)."""
    size = max_of(held)
    if "tensor_parallel_size" in settings:
        return _of_engine(config, settings, size)
    if "batch_tokens" in settings:
        section, dtype, tokens = "logps", config["logps"]["dtype"], sum(pair_lengths(config))
        if "reward" in wildcards or "judge" in wildcards:
            rewards = config["rewards"]
            classifiers = [name for name in sorted(rewards) if rewards[name]["kind"] == "classifier"]
            name = wildcards.get("reward") or classifiers[0]
            section, dtype, tokens = f"rewards.{name}", rewards[name]["dtype"], longest(config)
        return readers.Reader(size, "scoring", section, dtype, tokens, settings["batch_tokens"])
    if "batch_size" in settings:
        section, dtype = (name := wildcards["benchmark"]), config["benchmarks"][name]["dtype"]
        section, at_once = f"benchmarks.{section}", settings["batch_size"]
        return readers.Reader(size, "decoding", section, dtype, OF_QUESTION, at_once)
    return readers.Reader(size, "merging", "", trains[1]["dtype"])


def _of_engine(config, settings, size):
    """Return the readers.Reader of a job that runs a language model of a size: a policy or a judge."""
    endpoint, engine = json.loads(settings["endpoint"]), config["generate"]
    of_judge = endpoint is not None and endpoint["kind"] == "vllm"
    at_once = settings["batch_size"]
    if not of_judge and engine["engine"] == "transformers":
        return readers.Reader(size, "decoding", "generate", engine["dtype"], longest(config), at_once)
    section, dtype = "generate", engine["dtype"]
    if of_judge:
        section, dtype = f"endpoints.{endpoint.get('name')}", endpoint["dtype"]
    chosen = {} if of_judge else engine["vllm"]
    context = chosen.get("max_model_len") or (OF_JUDGE if of_judge else longest(config))
    return readers.Reader(
        size,
        "vllm",
        section,
        dtype,
        min(context, size.context or context),
        at_once,
        settings["tensor_parallel_size"],
        settings["gpu_memory_percent"],
        **{key: chosen[key] for key in ("quantization", "kv_cache_dtype") if key in chosen},
    )


def _of_reader(job, node, fixed):
    """Return the resources (dict) of a readers.Reader."""
    if job.work == "merging":
        return {"mem_mb": host.merging(job.model)}
    if node.gpus == 0:
        fewer = {"decoding": 1, "scoring": inference.CPU_BATCH_TOKENS}.get(job.work, job.at_once)
        held = readers.parts(dataclasses.replace(job, at_once=fewer, devices=1))
        return {"mem_mb": host.LIGHT * (2 if job.work == "vllm" else 1) + inference.of_cpu(held)}
    if job.work == "vllm":
        shared, most = fixed.get("tensor_parallel_size") or fixed.get("gpu"), node.gpus or 1
        if shared is None and node.gpu_memory is not None:
            # The largest that divides the heads, if none is enough.
            shared = readers.devices(job, node.gpu_memory, most)
            shared = shared or max(number for number in range(1, most + 1) if job.model.heads % number == 0)
        shared = shared or job.devices
        return {"gpu": shared, "tensor_parallel_size": shared, "mem_mb": host.serving(job.model, shared)}
    name, least = ("batch_size", 1) if job.work == "decoding" else ("batch_tokens", 1024)
    at_once = job.at_once
    if node.gpu_memory is not None:
        at_once = readers.largest(job, node.gpu_memory) or min(at_once, least)
    return {name: at_once, "mem_mb": host.loading(job.model, job.dtype)}

# Resources that follow from the sizes of jobs' models.

from collections import defaultdict

from snakemake.common.tbdstring import TBDString

from prefline.machine import derived as derive
from prefline.machine import launch
from prefline.training import arguments

# Resources that follow from the sizes of a job's models, if its rule has them and nobody sets them.
DERIVED = (
    "gpu",
    "parallel",
    "per_device_train_batch_size",
    "gradient_checkpointing",
    "tensor_parallel_size",
    "batch_size",
    "batch_tokens",
    "gpu_memory_percent",
    "mem_mb",
)
# {rule: MB} of jobs whose estimate is above machine.memory.
CAPPED = {}
SAID = set()
# Inputs of rules that are directories of models.
ROLES = ("model", "reference", "references", "reward_models")


def models_read(input):
    """Return {input: names of models} that a job reads, by its inputs."""
    found = {}
    for role in ROLES:
        given = input.get(role, [])
        paths = map(Path, [given] if isinstance(given, str) else given)
        found[role] = [path.name for path in paths if path.parent == Path("results/models")]
    return found


def trained_by(wildcards):
    """Return (method, training keys) of the model that a job trains or merges; None for other jobs."""
    name = wildcards.get("model") or "{run}-{iteration}".format_map(defaultdict(str, wildcards.items()))
    if name in TRAINED:
        run = naming.run_of(name)
        return configuration.method_of(config, run), configuration.training(config, run)
    section = config["models"].get(name, {})
    return (derive.METHODS[name], section["training"]) if "training" in section else None


def refuse_too_large(jobs):
    """Raise Refusal for `jobs` whose models do not fit the machine's GPUs, as far as these are fetched."""
    asked, found, mismatches = set(), defaultdict(set), set()
    for job in jobs:
        if "gpu" not in job.rule.resources:
            continue
        models, wildcards = models_read(job.input), dict(job.wildcards.items())
        # All shards and parts need the same.
        alike = {key: value for key, value in wildcards.items() if key not in ("shard", "part")}
        key = job.rule.name, json.dumps([models, alike], sort_keys=True)
        if key not in asked:
            asked.add(key)
            # As they are now: a job evaluates its own once more, when it starts.
            settings = job.rule.expand_resources(job.wildcards_dict, job.input, 1, {"tmpdir"})
            about = models, wildcards, trained_by(job.wildcards)
            settings = dict(settings.items())
            if "gres" in settings:
                settings["gpu"] = derive.gpus_of(settings["gres"])
            found[derive.too_large(config, MACHINE, settings, *about)].add(job.rule.name)
            mismatches.add(cannot_share(job.rule.name, settings, *about))
    found.pop(None, None)
    sentences = [f"{needing(rules)} {why}" for why, rules in found.items()] + [*mismatches - {None}]
    if sentences:
        raise Refusal("\n".join(sorted(sentences)))


def cannot_share(rule, settings, models, wildcards, trains):
    """Return the sentence about GPUs that cannot share a job's rows or model, or not in the way that is set."""
    wrong = derive.mismatched(config, settings, models, wildcards)
    gpus = settings.get("gpu")
    if wrong is None and derive.ROWS in settings and trains and isinstance(gpus, int):
        devices = max(1, gpus * settings.get("nodes", 1))
        try:
            if not isinstance(settings["parallel"], TBDString):
                launch.sharing(settings["parallel"])
            arguments.accumulation(trains[1]["global_batch_size"], 1, devices)  # any rows divide a share
            if trains[1].get("sampler") == "vllm" and devices > 1:
                raise InputError(
                    f"online.sampler vllm samples on one device, and the training has {devices}; set the resource "
                    "gpu to 1, or take online.sampler: transformers"
                )
        except InputError as error:
            wrong = error
    return wrong and f"{rule}: {wrong}"


def capped():
    """Return a sentence about jobs that need more memory than machine.memory, once for the same jobs; or None."""
    if not CAPPED:
        return None
    needs = ", ".join(f"{rule} {value / 1000:.0f}" for rule, value in sorted(CAPPED.items()))
    sentence = (
        f"machine.memory is {MACHINE.memory / 10**9:g} GB, less than these jobs need, which may be killed: {needs}; "
        "raise it, or take smaller models"
    )
    known = sentence in SAID
    SAID.add(sentence)
    return None if known else sentence


def needing(rules):
    """Return the names of rules and a verb (str): "a, b and c need"."""
    *names, last = sorted(rules)
    return f"{', '.join(names)} and {last} need" if names else f"{last} needs"


def derived(name, own, fixed):
    """Return the function of a job for its resource `name`.

    own, fixed: {name: Resource} of the rule, and of the config and the command line, which come first.
    """

    def value(wildcards, input, attempt, threads, rulename, async_run):
        about = dict(input=input, attempt=1, threads=threads, rulename=rulename, async_run=async_run)
        known = {key: resource.evaluate(wildcards, **about).value for key, resource in own.items()}
        stated = {key: resource.evaluate(wildcards, **about).value for key, resource in fixed.items()}
        try:
            about = models_read(input), dict(wildcards.items()), trained_by(wildcards)
            found = derive.resources(config, MACHINE, known, stated, *about)
        except derive.NotFetched:
            return TBDString()
        value = found.get(name, known[name])
        if name != "mem_mb":
            return value
        most = MACHINE.memory and int(MACHINE.memory / 10**6)
        if most and value > most:
            CAPPED[rulename] = max(value, CAPPED.get(rulename, 0))
        return min(value * attempt, most or value * attempt)

    return value

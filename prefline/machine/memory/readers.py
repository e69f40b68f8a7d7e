"""Estimate a job that only reads a model, and name the cheapest change with which it fits a card."""

import dataclasses

from prefline.machine.memory import fit, inference, sizes

DECIMALS = 10  # GB from which on a size is written without decimals
MOST = 64  # GPUs that a sentence names as enough


@dataclasses.dataclass(frozen=True)
class Reader:
    """A job that only reads a model.

    work: vllm, decoding (with transformers), scoring or merging; section: of the config, with its `dtype`;
    longest: tokens of the longest prompt and completion; at_once: completions, or tokens of scoring, at once;
    devices: GPUs that share the model; percent: of a card that the job takes; the rest: of vLLM.
    """

    model: sizes.Model
    work: str
    section: str
    dtype: str
    longest: int = 0
    at_once: int = 0
    devices: int = 1
    percent: int = 100
    quantization: str | None = None
    kv_cache_dtype: str = "auto"


def parts(job):
    """Return the parts (dict) of a Reader on each GPU."""
    given = job.model, job.dtype
    if job.work == "vllm":
        more = {"quantization": job.quantization, "kv_cache_dtype": job.kv_cache_dtype}
        return inference.vllm(*given, job.longest, job.devices, job.at_once, **more)
    if job.work == "decoding":
        return inference.generation(*given, job.at_once, job.longest)
    return inference.scoring(*given, job.at_once, job.longest, logits=job.work == "scoring")


def fits(job, card):
    """Tell whether a Reader fits a card of `card` GB."""
    return fit.total(parts(job)) <= fit.usable(card) * job.percent / 100


def devices(job, card, most):
    """Return the fewest GPUs (int), up to `most`, on which a Reader by vLLM fits; None if none do."""
    more = {"quantization": job.quantization, "kv_cache_dtype": job.kv_cache_dtype}
    given = job.model, job.dtype, job.longest, card, job.percent, most
    return fit.tensor_parallel_size(*given, batch_size=job.at_once, **more)


def largest(job, card):
    """Return the largest `at_once` (int), up to the job's, with which it fits; 0 if none does."""
    given = job.model, job.dtype, job.longest, card, job.at_once
    if job.work == "decoding":
        return fit.largest_batch_size(*given)
    return fit.largest_batch_tokens(*given)


def complaint(job, card, gpus):
    """Return what refuses a Reader that does not fit, after "RULE needs "; None if it fits.

    card: GB of a GPU; gpus: of the machine.
    """
    if fits(job, card):
        return None
    held = parts(job)
    shared = f" on each of {job.devices} GPUs" if job.devices > 1 else ""
    words = f"about {_gb(fit.total(held))} GB{shared} for the model {job.model.name}, the card has {card:g}"
    words += f", of which vLLM gets {job.percent} %" if job.work == "vllm" else ""
    largest_parts = sorted(held.items(), key=lambda part: -part[1])[:3]
    words += f" ({', '.join(f'{name} {_gb(size)}' for name, size in largest_parts)}); "
    if job.work == "merging":
        return f"{words}set gpu: 0, which merges on the CPU"
    for change, changed in _changes(job, card, gpus):
        if fits(changed, card):
            return f"{words}set {' and '.join(change)}, which needs about {_gb(fit.total(parts(changed)))}"
    enough = devices(job, card, MOST) if job.work == "vllm" else None
    return words + (f"take {enough} such GPUs, " if enough else "take ") + "a smaller model or a larger card"


def _changes(job, card, gpus):
    """Yield (list of words, Reader): changes of a job, first those that only cost time."""
    yield from _resources([], job, card, gpus)
    words = []
    if job.dtype == "float32":
        job, words = dataclasses.replace(job, dtype="bfloat16"), [f"{job.section}.dtype: bfloat16"]
        yield words, job
        yield from _resources(words, job, card, gpus)
    if job.section == "generate" and job.work == "decoding":
        served = dataclasses.replace(job, work="vllm", percent=90)
        yield from _resources([*words, "generate.engine: vllm"], served, card, gpus)
    elif job.section == "generate" and job.quantization is None:
        yield [*words, "generate.vllm.quantization: fp8"], dataclasses.replace(job, quantization="fp8")


def _resources(words, job, card, gpus):
    """Yield (list of words, Reader) of the change of resources with which a job fits, if there is one."""
    if job.work == "vllm":
        if enough := devices(job, card, gpus):
            yield [*words, f"gpu: {enough}"], dataclasses.replace(job, devices=enough)
    elif at_once := largest(job, card):
        name = "batch_size" if job.work == "decoding" else "batch_tokens"
        yield [*words, f"{name}: {at_once}"], dataclasses.replace(job, at_once=at_once)


def _gb(size):
    """Return bytes as GB (str)."""
    size /= fit.GB
    return f"{size:.0f}" if size >= DECIMALS else f"{size:.1f}"

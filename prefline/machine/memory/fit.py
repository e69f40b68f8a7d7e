"""Tell whether a job fits a card, and the cheapest change with which it does."""

import dataclasses

from prefline.machine.memory import inference
from prefline.machine.memory import training as trainings

GIB = 2**30
GB = 1e9
SAMPLER_SHARE = 0.9  # of what a training leaves free, for its sampler
RESERVED = 0.02  # of a card, by its driver and error correction
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}


def total(held):
    """Return the bytes of all parts."""
    return sum(held.values())


def usable(card):
    """Return the bytes of a card that is sold with `card` (24, 48, 80 …) GB, which are GiB."""
    return card * GIB * (1 - RESERVED)


def fits(held, card):
    """Tell whether the parts of a job fit a card of `card` GB."""
    return total(held) <= usable(card)


def tensor_parallel_size(model, dtype, context, card, percent=90, most=8, **settings):
    """Return the fewest GPUs (a power of two that divides the heads) that serve a model by vLLM, or None.

    percent: the resource gpu_memory_percent; settings: more arguments of inference.vllm.
    """
    devices = 1
    while devices <= most:
        # Each GPU has whole KV heads, or several GPUs have the same one.
        even = model.kv_heads % devices == 0 or devices % model.kv_heads == 0
        if model.heads % devices == 0 and even:
            held = inference.vllm(model, dtype, context, devices, **settings)
            if total(held) <= usable(card) * percent / 100:
                return devices
        devices *= 2
    return None


def largest_rows(job, card):
    """Return the largest per_device_train_batch_size (int) with which a Training fits; 0 if none does."""
    return _largest(lambda rows: fits(trainings.parts(dataclasses.replace(job, rows=rows)), card), job.share)


def sampler_percent(job, card):
    """Return the resource gpu_memory_percent (int) of a Training's sampler vllm: most of what it leaves."""
    held = total(trainings.beside_sampler(job)) * (1 + trainings.FRAGMENTS) + 2 * trainings.CONTEXT
    return max(5, min(90, int(SAMPLER_SHARE * 100 * (1 - RESERVED - held / (card * GIB)))))


def largest_batch_tokens(model, dtype, longest, card, most=65_536):
    """Return the largest power of two for the resource batch_tokens; 0 if `longest` tokens do not fit."""
    sizes = [2**power for power in range(10, 17) if 2**power <= most]
    good = [size for size in sizes if fits(inference.scoring(model, dtype, size, longest), card)]
    return max(good, default=0)


def largest_batch_size(model, dtype, tokens, card, most=1024):
    """Return the largest resource batch_size (int) for the engine transformers; 0 if none fits."""
    return _largest(lambda rows: fits(inference.generation(model, dtype, rows, tokens), card), most)


def _largest(good, most):
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if good(middle) else (low, middle - 1)
    return low


def cheapest_change(job, card, gpus=1):
    """Return (words, Training) of the first change with which a Training fits a card, or None.

    Those that only cost time come first, then more GPUs of the machine's `gpus`, then those that change
    results. The words are what to set.
    """
    for words, changed in _changes(job, gpus):
        rows = largest_rows(changed, card)
        if rows and (whole_batch := _whole_batch(changed)) and rows < whole_batch:
            continue
        if rows >= 1:
            rows = min(rows, job.rows)
            changed = dataclasses.replace(changed, rows=rows)
            if rows < job.rows and rows < changed.share:
                words = [*words, f"per_device_train_batch_size: {changed.at_once}"]
            return " and ".join(words), changed
    return None


def _whole_batch(job):
    """Return the rows (int) that must be on a device at once: all of a step in kto and ppo; else 0."""
    return job.share if job.method in ("kto", "ppo") else 0


def _changes(job, gpus):
    """Yield (list of words, Training): each change of a job alone and with those before it."""
    checkpointed = dataclasses.replace(job, gradient_checkpointing=True)
    yield [], job
    words = [] if job.gradient_checkpointing else ["gradient_checkpointing: true"]
    if words:
        yield words, checkpointed
    shardable = not job.quantized and job.method != "ppo" and "8bit" not in job.optim
    shardable &= "paged" not in job.optim
    devices = 2 * job.devices
    while devices <= gpus and job.global_batch_size % devices == 0:
        if shardable:
            yield (
                [*words, f"gpu: {devices}", "parallel: fsdp2"],
                dataclasses.replace(checkpointed, devices=devices, parallel="fsdp2"),
            )
        devices *= 2
    if job.peft is None and not job.sharded:
        yield [*words, "optim: adamw_8bit"], dataclasses.replace(checkpointed, optim="adamw_8bit")
    single = dataclasses.replace(checkpointed, devices=1, parallel="ddp")
    if job.method == "ppo":
        return
    if job.peft is None:
        yield [*words, "peft (LoRA)"], dataclasses.replace(single, peft=LORA)
    if not job.quantized:
        settings = (job.peft or LORA) | {"quantization": "nf4"}
        named = "peft.quantization: nf4" if job.peft else "peft with quantization: nf4 (QLoRA)"
        yield [*words, named], dataclasses.replace(single, peft=settings)


def complaint(job, card, gpus=1):
    """Return what refuses a Training that does not fit a card, after "RULE needs "; None if it fits."""
    held = trainings.parts(job)
    if fits(held, card):
        return None
    words = f"about {total(held) / GB:.0f} GB, the card has {card:g}"
    largest = ", ".join(
        f"{name} {size / GB:.0f}" for name, size in sorted(held.items(), key=lambda part: -part[1])[:3]
    )
    found = cheapest_change(job, card, gpus)
    if found is None:
        return f"{words} ({largest}); take a smaller model, shorter max lengths, or a larger card"
    change, changed = found
    needed = total(trainings.parts(changed)) / GB
    return f"{words} ({largest}); set {change}, which needs about {needed:.0f}"

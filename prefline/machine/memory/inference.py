"""Estimate the memory of jobs that only read a model: scoring, decoding with transformers, and vLLM."""

from prefline.machine.memory import training

LOGIT_CHUNK = 12  # bytes for each logit of a chunk without gradients
DECODED = 28  # bytes for each logit of a decoding step: float32, sorted, and sums in float64
# vLLM's share beside weights and cache: CUDA graphs, its context, and the kernels' workspace.
VLLM = 2.5e9
VLLM_BATCHED_TOKENS = 8192
CPU_BATCH_TOKENS = 2048
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Bytes for each weight of vLLM's `quantization`; others are as stored.
QUANTIZED = {"fp8": 1.0, "bitsandbytes": training.NF4, "awq": 0.55, "gptq": 0.55}


def scoring(model, dtype, batch_tokens, longest, logits=True, chunk=training.CHUNK):
    """Return the parts of log-probabilities, or (without logits) of rewards, of sequences in packed batches.

    batch_tokens: the resource; longest: tokens of the longest prompt with its completions.
    """
    tokens, size = max(batch_tokens, longest), SIZES[dtype]
    hidden, wide = model.hidden, model.intermediate
    held = {
        "weights": training.frozen_bytes(model, dtype),
        "activations": tokens * (size * (3 * wide + hidden) + 12 * hidden),
        "logits": chunk * model.vocabulary * LOGIT_CHUNK if logits else 0,
    }
    return _with_overhead(held)


def generation(model, dtype, batch_size, tokens, prompt_tokens=0):
    """Return the parts of the engine transformers; tokens: longest prompt and completion together."""
    size = SIZES[dtype]
    cached = size * model.cached_width
    one_layer = batch_size * tokens * (2 * cached + 2 * size * model.query_width)
    reading = batch_size * prompt_tokens * (size * (3 * model.intermediate + 8 * model.hidden))
    held = {
        "weights": size * model.parameters,
        "cache": batch_size * (tokens + 64) * model.layers * cached,
        "activations": max(one_layer, reading),
        "logits": batch_size * model.vocabulary * DECODED,
    }
    return _with_overhead(held)


def vllm(
    model,
    dtype,
    context,
    tensor_parallel_size=1,
    batch_size=256,
    batched_tokens=0,
    quantization=None,
    kv_cache_dtype="auto",
):
    """Return the least that vLLM takes on each GPU: with a cache of one whole context.

    It fills all that gpu_memory_percent gives it with further cache. context: its max_model_len;
    batch_size: the resource, most completions at once.
    """
    size, devices = SIZES[dtype], tensor_parallel_size
    weight = QUANTIZED.get(quantization, size)
    matrices = model.linear + model.experts
    held = {
        "weights": (weight * matrices + size * (model.parameters - matrices)) / devices,
        "cache": context * cache_of_vllm(model, dtype, devices, kv_cache_dtype),
        "activations": max(batched_tokens or VLLM_BATCHED_TOKENS, 1)
        * (size * (2 * model.intermediate / devices + 6 * model.hidden)),
        "logits": batch_size * model.vocabulary * 12,
        "vLLM": VLLM + training.COMMUNICATION * (devices > 1),
    }
    return held


def cache_of_vllm(model, dtype, tensor_parallel_size=1, kv_cache_dtype="auto"):
    """Return the bytes of a token's keys and values on each GPU; KV heads fewer than GPUs are copied."""
    size = SIZES[dtype] if kv_cache_dtype == "auto" else 1
    shared = min(tensor_parallel_size, model.kv_heads)
    return model.layers * model.cached_width * size / shared


def of_cpu(held):
    """Return the bytes of a job's parts without what only GPUs have."""
    return sum(size for name, size in held.items() if name not in ("CUDA", "fragments", "vLLM"))


def _with_overhead(held):
    held = {name: size for name, size in held.items() if size}
    fragments = training.FRAGMENTS * sum(held.values())
    return held | {"fragments": fragments, "CUDA": training.CONTEXT}

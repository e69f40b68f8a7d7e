"""The sampler `vllm` of trainings that sample: a vLLM engine in the training's process, on its device.

The engine begins with noise for weights. After each optimizer step it gets the policy's, with adapters merged
and quantized weights as what they stand for. A weight that vLLM does not take stays noise, which the trainer
finds when it compares log-probabilities (mismatch.py). Then the cache of prefixes is emptied.

vLLM packs the head for its kernels on CPUs, a copy that a reload leaves as it was where the head is the
embedding: it is packed again. An engine in the process seeds Python, NumPy and torch: their states are
restored. On a GPU the engine sleeps while the policy is trained: it hands back its cache, and keeps its
weights in the machine's memory.
"""

import contextlib
import logging
import random
import time
from types import MappingProxyType

import numpy as np
import torch

from prefline import engines
from prefline.engines import recovery, vllm
from prefline.errors import InputError, MachineError
from prefline.machine import device
from prefline.training import adapters, samplers

# Of the engine: the others follow from the training. Four-bit weights are sent as what they stand for.
OPTIONS = {
    **{"tensor_parallel_size": 1, "max_num_batched_tokens": 0, "max_model_len": 0},
    **{"quantization": None, "kv_cache_dtype": "auto", "enforce_eager": False},
}
MOST_AT_ONCE = 256  # completions that the engine decodes together


class VLLM(samplers.Sampler, vllm.Engine):
    """See the module, and samplers.py.

    directory: of the model that the training starts from; completions: of a step on this device; dtype: the
    training's; tokens: the most of a prompt and its completion; percent: of a GPU's memory, for the engine.
    """

    PARAMETERS = MappingProxyType({"logprobs": 0, "flat_logprobs": True})  # of the tokens that were drawn

    def __init__(self, directory, completions, dtype, seed, tokens, percent):
        device.check_sampler()
        self.version, self.update_seconds = None, []
        self.sleeps = torch.cuda.is_available()
        # It names buffers that no file has, such as those of rotary embeddings, at each update.
        logging.getLogger("vllm.model_executor.model_loader.reload.layerwise").setLevel(logging.ERROR)
        with kept_random_states():
            super().__init__(
                directory,
                min(completions, MOST_AT_ONCE),
                dtype,
                "completion",
                seed,
                apart=False,
                # Log-probabilities are of the distribution that was drawn from, its temperature included.
                more={
                    **{"load_format": "dummy", "logprobs_mode": "processed_logprobs"},
                    "enable_sleep_mode": self.sleeps,
                },
                gpu_memory_percent=percent,
                tokens=tokens,
                **OPTIONS,
            )
        if self.sleeps:
            self.engine.sleep(1)

    def _sample(self, policy, requests, sampling, version):
        self.files.check(requests, sampling.max_tokens)
        made = [None] * len(requests)
        with kept_random_states(), self._awake():
            if version != self.version:
                self.update(policy)
                self.version = version
            try:
                for index, completion in self._run(list(enumerate(requests)), sampling):
                    made[index] = completion
            except recovery.Crash as crash:
                # A new engine would have no weights: the training resumes from its checkpoint.
                raise MachineError(f"online.sampler vllm: the engine died ({crash})") from crash
        return made

    def update(self, policy):
        """Give the engine the weights of `policy`; raise InputError if vLLM does not take them."""
        began = time.monotonic()
        weights = weights_of(policy)
        try:
            self.engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            self.engine.collective_rpc(pack_heads)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"online.sampler vllm: vLLM does not take the weights of a {policy.config.model_type} again "
                f"({type(error).__name__}: {str(error).splitlines()[0]}); take online.sampler: transformers"
            ) from error
        if not self.engine.reset_prefix_cache():
            raise RuntimeError("vLLM kept keys and values of the previous weights: requests are running")
        self.update_seconds.append(time.monotonic() - began)

    def report(self):
        """Return the samplers' report, and the mean seconds of an update of the weights."""
        mean = sum(self.update_seconds) / max(len(self.update_seconds), 1)
        return super().report() | {"weight_update_seconds": round(mean, 4)}

    @contextlib.contextmanager
    def _awake(self):
        if self.sleeps:
            self.engine.wake_up()
            self.engine.reset_prefix_cache()
        yield
        if self.sleeps:
            self.engine.sleep(1)

    def _completion(self, made):
        ids = list(made.token_ids)
        logps = [logps[0] for logps in _by_token(made.logprobs)]
        return engines.Completion(ids, made.finish_reason, logps)


def _by_token(flat):
    """Yield the log-probabilities of each place in vLLM's FlatLogprobs, that of the drawn token first."""
    for start, end in zip(flat.start_indices, flat.end_indices, strict=True):
        yield flat.logprobs[start:end]


def pack_heads(worker):
    """Pack the heads of a vLLM worker's model again for its kernels; runs in the worker."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in worker.get_model().modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


def weights_of(policy):
    """Return an iterable of (name, tensor), the weights of a policy as files of its architecture have them.

    Adapters are added to the weights below them, in float32, and four-bit weights are what they stand for.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import revert_weight_conversion

    base = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
    conversions = getattr(base, "_weight_conversions", None) or get_model_conversion_mapping(base)
    if conversions:
        return revert_weight_conversion(base, dict(_merged(policy, base))).items()
    return _merged(policy, base)


@torch.no_grad()
def _merged(policy, base):
    """Yield (name, tensor) of a policy's weights, by the names of the architecture without adapters."""
    adapted = {}
    for _, layer in adapters.adapted_layers(policy):
        adapted.setdefault(id(adapters.weight_of(layer)), []).append(layer)
    quantized = {f"{name}.weight": layer for name, layer in adapters.quantized_layers(base)}
    for name, tensor in base.state_dict(keep_vars=True).items():
        parts = name.split(".")
        if any(part.startswith("lora_") for part in parts):
            continue
        if any(name.startswith(f"{weight}.") for weight in quantized):
            continue  # the scales of four-bit weights
        layers = adapted.get(id(tensor), [])
        tensor = tensor.detach()
        if name in quantized:
            from bitsandbytes.functional import dequantize_4bit

            tensor = dequantize_4bit(tensor, quantized[name].weight.quant_state)
        for layer in layers:
            for adapter in layer.active_adapters:
                tensor = tensor.float() + layer.get_delta_weight(adapter).float()
        yield ".".join(part for part in parts if part != "base_layer"), tensor


@contextlib.contextmanager
def kept_random_states():
    """Keep the states of the process's random generators: return a context that restores them."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])

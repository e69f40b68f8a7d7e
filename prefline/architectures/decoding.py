"""Compute next-token logits of prompts and their completions, in a way that is exact for the model.

There are three ways, the fastest first. `exact.decoding` finds those that give an architecture's own
logits: on a miniature, it compares each with whole sequences, one at a time and without a cache.
"""

import functools
import inspect

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

# Number of tokens by which the cache grows.
CACHE_BLOCK = 64
# Names of the cache in the outputs of models.
CACHES = ("past_key_values", "cache_params", "state")


class Batched:
    """Rows decoded together: prompts are padded on the left, and equal prompts read once.

    prompts: list of lists of ids; fill: the padding id. After the initialization, `logits` (rows,
    vocabulary) are those after each prompt; then `step` and `keep` change them.
    """

    name = "batched"

    def __init__(self, model, prompts, fill):
        self.model, device = model, model.device
        unique = {tuple(prompt): row for row, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        width = max(map(len, unique))
        input_ids = torch.full((len(unique), width), fill)
        mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(unique):
            input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        mask = mask.to(device)
        self.cache = DynamicCache(config=model.config)
        self.cache.layers = [
            BlockLayer() if type(layer) is DynamicLayer else layer for layer in self.cache.layers
        ]
        logits = self._forward(input_ids.to(device), mask)
        rows = torch.tensor([unique[tuple(prompt)] for prompt in prompts], device=device)
        self._select(rows)
        self.logits, self.mask = logits[rows], mask[rows]

    def step(self, new):
        """Read the next token of each row: int64 (rows,)."""
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        self.logits = self._forward(new[:, None], self.mask)

    def keep(self, rows):
        """Drop all rows but `rows`, int64."""
        self._select(rows)
        self.mask = self.mask[rows]

    def _select(self, rows):
        for layer in self.cache.layers:
            # Recurrent layers only have the second method, which also takes fewer rows.
            recurrent = isinstance(layer, LinearAttentionCacheLayerMixin)
            (layer.reorder_cache if recurrent else layer.batch_select_indices)(rows)

    def _forward(self, input_ids, mask):
        """Return logits (rows, vocabulary) after the last of `input_ids`; `mask` covers cached tokens."""
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        taken = known(
            self.model,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return self.model(input_ids=input_ids, **taken).logits[:, -1]


class Cached:
    """Rows decoded one by one, each with the model's own cache."""

    name = "one at a time"

    def __init__(self, model, prompts, fill):
        self.model, self.places, self.caches = model, [], []
        logits = {}
        for prompt in prompts:
            logits_of, cache = self._forward(torch.tensor([prompt], device=model.device), 0, {})
            self.caches.append(cache)
            self.places.append(len(prompt))
            logits[len(logits)] = logits_of
        self.logits = torch.cat(list(logits.values()))

    def step(self, new):
        """Read the next token of each row: int64 (rows,)."""
        logits = []
        for row, token in enumerate(new):
            logits_of, self.caches[row] = self._forward(token[None, None], self.places[row], self.caches[row])
            self.places[row] += 1
            logits.append(logits_of)
        self.logits = torch.cat(logits)

    def keep(self, rows):
        """Drop all rows but `rows`, int64."""
        rows = rows.tolist()
        self.caches = [self.caches[row] for row in rows]
        self.places = [self.places[row] for row in rows]

    def _forward(self, input_ids, start, cache):
        """Return (logits (1, vocabulary) after the last of input_ids, the cache that includes them)."""
        stop = start + input_ids.shape[1]
        places = torch.arange(start, stop, device=input_ids.device)
        taken = known(self.model, position_ids=places[None], use_cache=True, logits_to_keep=1)
        output = self.model(input_ids=input_ids, **taken, **cache)
        return output.logits[:, -1], {name: output[name] for name in CACHES if output.get(name) is not None}


class Whole:
    """Rows decoded one by one, and read from the beginning for each token: exact, and slow."""

    name = "one at a time, without a cache"

    def __init__(self, model, prompts, fill):
        self.model, self.ids = model, [torch.tensor(prompt, device=model.device) for prompt in prompts]
        self._read()

    def step(self, new):
        """Read the next token of each row: int64 (rows,)."""
        self.ids = [torch.cat([ids, token[None]]) for ids, token in zip(self.ids, new, strict=True)]
        self._read()

    def keep(self, rows):
        """Drop all rows but `rows`, int64."""
        self.ids = [self.ids[row] for row in rows.tolist()]

    def _read(self):
        taken = known(self.model, use_cache=False, logits_to_keep=1)
        self.logits = torch.cat([self.model(input_ids=ids[None], **taken).logits[:, -1] for ids in self.ids])


WAYS = {way.name: way for way in (Batched, Cached, Whole)}


def known(model, **inputs):
    """Return those of `inputs` that the forward pass of `model`, without adapters, takes."""
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    parameters = _parameters(type(causal_lm))
    return {name: value for name, value in inputs.items() if name in parameters}


@functools.cache
def _parameters(cls):
    return inspect.signature(cls.forward).parameters.keys()


class BlockLayer(DynamicLayer):
    """A cache layer that grows by blocks of tokens.

    The library's cache copies everything for each token, which took 85 % of the time to decode 256 rows.
    """

    def __init__(self):
        super().__init__()
        self.buffers = None

    def update(self, key_states, value_states, *args, **kwargs):
        """Return all keys and values, with those of the new tokens (rows, heads, tokens, size) at the end."""
        start, stop = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.buffers is None or stop > self.buffers[0].shape[-2]:
            self.buffers = [
                new.new_empty(*new.shape[:2], stop + CACHE_BLOCK, new.shape[-1])
                for new in (key_states, value_states)
            ]
            if start:
                self.buffers[0][:, :, :start] = self.keys
                self.buffers[1][:, :, :start] = self.values
        self.buffers[0][:, :, start:stop] = key_states
        self.buffers[1][:, :, start:stop] = value_states
        self.keys, self.values = (buffer[:, :, :stop] for buffer in self.buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices):
        super().batch_select_indices(indices)
        self.buffers = None

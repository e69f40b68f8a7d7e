"""The `transformers` engine: batched decoding in this process, on a GPU if there is one.

It differs from `model.generate` in four ways. A row's tokens are drawn by inverse CDF with uniform numbers
of the row's own stream (Philox, keyed by the request's seed): torch's generator serves a whole batch, so a
completion would change with the batch it is decoded in, and so with the number of shards. Rows that have
ended leave the batch. Equal prompts of a batch are read by the model once. The cache keeps room for tokens
to come.
"""

import time

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from transformers.utils import logging

from prefline.engines import Base, Completion
from prefline.engines.model_files import ModelFiles

# Ended rows are taken out when this part of the batch is left: taking them out copies the rest's cache.
REPACK_AT = 0.85
# Tokens of room that the cache makes at a time.
CACHE_BLOCK = 64


class Engine(Base):
    """See `prefline.engines.load`."""

    def __init__(self, model, batch_size, dtype):
        began = time.monotonic()
        logging.disable_progress_bar()
        self.files = ModelFiles(model)
        self.tokenizer, self.end_tokens = self.files.tokenizer, self.files.end_tokens
        self.batch_size = batch_size
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = AutoModelForCausalLM.from_pretrained(
            model, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
        )
        self.model.to(self.device).eval()
        self.start_seconds = time.monotonic() - began

    def stream(self, requests, sampling):
        """(index, Completion) batch by batch; InputError, before the first, if a request does not fit."""
        self.files.check(requests, sampling.max_tokens)
        # Prompts of like length share a batch for little padding, equal ones to be read once.
        order = sorted(
            range(len(requests)), key=lambda row: (len(requests[row].prompt_ids), requests[row].prompt_ids)
        )
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            decoded = self._decode([requests[row] for row in batch], sampling)
            for row, ids in zip(batch, decoded, strict=True):
                yield row, Completion(ids, "stop" if ids[-1] in self.end_tokens else "length")

    def report(self):
        return {}

    @torch.inference_mode()
    def _decode(self, requests, sampling):
        """The new ids of each request (list of list of int), decoded together."""
        uniforms = uniform_streams([request.seed for request in requests], sampling.max_tokens).to(
            self.device
        )
        ends = torch.tensor(self.end_tokens, device=self.device)
        logits, mask, cache = self._read_prompts([request.prompt_ids for request in requests])
        rows = torch.arange(len(requests), device=self.device)  # the requests still in the batch
        running = torch.ones_like(rows, dtype=torch.bool)  # those of `rows` that have not ended
        tokens = []
        for step in range(sampling.max_tokens):
            new = pick(logits.float(), sampling, uniforms[rows, step])
            tokens.append((rows[running].tolist(), new[running].tolist()))
            running &= ~torch.isin(new, ends)
            left = int(running.sum())
            if left == 0 or step + 1 == sampling.max_tokens:
                break
            if left <= REPACK_AT * len(rows):
                cache.batch_select_indices(running.nonzero()[:, 0])
                new, mask, rows, running = new[running], mask[running], rows[running], running[running]
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)
            logits = self._forward(new[:, None], mask, cache)
        ids = [[] for _ in requests]
        for step_rows, step_tokens in tokens:
            for row, token in zip(step_rows, step_tokens, strict=True):
                ids[row].append(token)
        return ids

    def _read_prompts(self, prompts):
        """Next-token logits, attention mask and cache of `prompts`, a row each; equal ones computed once."""
        unique = {tuple(prompt): row for row, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        width = max(map(len, unique))
        input_ids = torch.full((len(unique), width), self.end_tokens[0])
        mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(unique):
            input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        mask = mask.to(self.device)
        cache = DynamicCache(config=self.model.config)
        cache.layers = [BlockLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
        logits = self._forward(input_ids.to(self.device), mask, cache)
        rows = torch.tensor([unique[tuple(prompt)] for prompt in prompts], device=self.device)
        cache.batch_select_indices(rows)
        return logits[rows], mask[rows], cache

    def _forward(self, input_ids, mask, cache):
        """Logits (rows, vocabulary) after the last of `input_ids`; `mask` covers the cached tokens, too."""
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        output = self.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]


class BlockLayer(DynamicLayer):
    """A cache layer that grows by blocks of tokens.

    The library's own copies all that it holds for each token: 85 % of the time it took to decode 256 rows.
    """

    def __init__(self):
        super().__init__()
        self.buffers = None

    def update(self, key_states, value_states, *args, **kwargs):
        """All keys and values, those of the new tokens (rows, heads, tokens, size) behind the rest."""
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


def uniform_streams(seeds, number):
    """float64 (seeds, number) in [0, 1): row i depends on seeds[i] alone, a longer one goes on from it."""
    streams = [np.random.Generator(np.random.Philox(key=seed)).random(number) for seed in seeds]
    return torch.from_numpy(np.stack(streams))


def pick(logits, sampling, uniforms):
    """The next token of each row (int64): the likeliest at temperature 0, else drawn.

    logits: float32, (rows, vocabulary); uniforms: float64, (rows,). Temperature, top_k and top_p are
    applied in this order. Token j is drawn when the uniform number falls between the sums of the
    probabilities before j and up to j.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    scores = TemperatureLogitsWarper(float(sampling.temperature))(None, logits)
    if sampling.top_k > 0:
        scores = TopKLogitsWarper(sampling.top_k)(None, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)
    sums = scores.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    drawn = torch.searchsorted(sums, uniforms[:, None] * sums[:, -1:], right=True)[:, 0]
    return drawn.clamp(max=logits.shape[-1] - 1)

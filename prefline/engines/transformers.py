"""The `transformers` engine: batched decoding in this process, on a GPU if there is one.

It differs from `model.generate` in four ways. Tokens are drawn by inverse CDF with uniform numbers of the
row's own stream (Philox, keyed by the request's seed). With torch's generator, which serves a whole batch,
a completion would change with its batch, and so with the number of shards. Rows that have ended leave the
batch. Equal prompts of a batch are read once. The cache reserves room for further tokens. If this is not
exact for an architecture, decoding.py has slower ways.
"""

import time

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from transformers.utils import logging

from prefline.architectures import exact
from prefline.engines import Base, Completion
from prefline.engines.model_files import ModelFiles

# Ended rows are removed when this share of the batch is left, since removing them copies the cache of the
# others.
REPACK_AT = 0.85


class Engine(Base):
    """See `prefline.engines.load`."""

    def __init__(self, model, batch_size, dtype):
        began = time.monotonic()
        logging.disable_progress_bar()
        self.files = ModelFiles(model)
        self.tokenizer, self.end_tokens = self.files.tokenizer, self.files.end_tokens
        self.batch_size = batch_size
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        kernel = exact.attention(self.files.config, "sdpa")
        self.way = exact.decoding(self.files.config, kernel)
        self.model = AutoModelForCausalLM.from_pretrained(
            model,
            dtype=getattr(torch, dtype),
            attn_implementation=kernel,
            use_safetensors=True,
            trust_remote_code=False,
        )
        self.model.to(self.device).eval()
        self.start_seconds = time.monotonic() - began

    def stream(self, requests, sampling):
        """Yield (index, Completion) batch by batch; raise InputError first if a request does not fit."""
        self.files.check(requests, sampling.max_tokens)
        # Prompts of similar length share a batch for little padding; equal ones are read once.
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

    def tokens(self, request, sampling):
        """Yield the ids of one request's completion as they are drawn, those that `stream` gives."""
        self.files.check([request], sampling.max_tokens)
        for _, new in self._steps([request], sampling):
            yield from new

    def _decode(self, requests, sampling):
        """Return the new ids of each request (list of list of int), decoded together."""
        ids = [[] for _ in requests]
        for step_rows, step_tokens in self._steps(requests, sampling):
            for row, token in zip(step_rows, step_tokens, strict=True):
                ids[row].append(token)
        return ids

    @torch.inference_mode()
    def _steps(self, requests, sampling):
        """Yield (rows, their new ids) step by step, for requests decoded together, less ended ones."""
        uniforms = uniform_streams([request.seed for request in requests], sampling.max_tokens).to(
            self.device
        )
        ends = torch.tensor(self.end_tokens, device=self.device)
        prompts = [request.prompt_ids for request in requests]
        decoder = self.way(self.model, prompts, fill=self.end_tokens[0])
        rows = torch.arange(len(requests), device=self.device)  # the requests still in the batch
        running = torch.ones_like(rows, dtype=torch.bool)  # those of `rows` that have not ended
        for step in range(sampling.max_tokens):
            new = pick(decoder.logits.float(), sampling, uniforms[rows, step])
            yield rows[running].tolist(), new[running].tolist()
            running &= ~torch.isin(new, ends)
            left = int(running.sum())
            if left == 0 or step + 1 == sampling.max_tokens:
                break
            if left <= REPACK_AT * len(rows):
                decoder.keep(running.nonzero()[:, 0])
                new, rows, running = new[running], rows[running], running[running]
            decoder.step(new)


def uniform_streams(seeds, number):
    """Return float64 (seeds, number) in [0, 1): row i depends on seeds[i] only; longer ones extend it."""
    streams = [np.random.Generator(np.random.Philox(key=seed)).random(number) for seed in seeds]
    return torch.from_numpy(np.stack(streams))


def pick(logits, sampling, uniforms):
    """Return the next token of each row (int64): the likeliest at temperature 0, else drawn.

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

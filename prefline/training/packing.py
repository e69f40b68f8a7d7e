"""Pack sequences into one row, without padding, with every prompt once for all its completions.

A row is made of groups, each a prompt and its completions:

    [prompt][chosen][rejected][prompt][chosen][rejected] …

The layout is a list of groups [prompt's length, a completion's, another's, …]. Positions begin at 0 with
every prompt and continue from its end in every completion. Nearly all work is done token by token, on the
whole row; only attention needs the layout. In half precision on a GPU, attention is one call of torch's
flash kernel for sequences of many lengths, in which a completion's queries see the keys of its prompt and
its own. Elsewhere it splits the row into sequences (the prompt and one completion), runs SDPA's causal
kernel on each, and joins the row again. Attention gets the layout as its mask: a model that asks
transformers for a mask gets the Row.

The packed rows of transformers have one mask of all tokens by all tokens, which loses the causal kernel and
grows with the square of the row, or need flash-attn. They do not share prompts.

    measurements/logps.py measures this; docs/performance.md has the figures.
"""

import contextvars
import itertools
from typing import NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "packed_rows"  # without "sdpa": transformers refuses such names to models that lack sdpa
WIDEST_HEAD = 256  # of the flash kernel


class Row(NamedTuple):
    """A row's layout, its `spans` on a GPU, and the layer's sliding window, for attention."""

    layout: list
    spans: tuple | None
    window: int | None = None


ROW = contextvars.ContextVar("row")  # the Row that a body is computing


def unpack(row, layout, dim):
    """Yield the sequences of a row, a tensor whose dimension `dim` is the row's tokens."""
    segments = iter(row.split([length for group in layout for length in group], dim))
    for group in layout:
        prompt = next(segments)
        for _ in group[1:]:
            yield torch.cat([prompt, next(segments)], dim)


def pack(sequences, layout, dim):
    """Return the row of an iterable of `unpack`'s sequences; a prompt's tokens are those of its first one."""
    sequences, parts = iter(sequences), []
    for prompt, *completions in layout:
        parts.append(next(sequences))
        parts += [next(sequences).narrow(dim, prompt, completion) for completion in completions[1:]]
    return torch.cat(parts, dim)


def positions(layout):
    """Return the place of every token of a row in its sequence: int64 (tokens,)."""
    spans = []
    for prompt, *completions in layout:
        spans.append(torch.arange(prompt))
        spans += [torch.arange(prompt, prompt + completion) for completion in completions]
    return torch.cat(spans)


def spans(layout, device):
    """Return the flash kernel's arguments: (keys, key_ends, query_ends, most_queries, most_keys).

    Its sequences are the row's segments. Queries stay in the row's order. `keys`, int64, are the places in
    the row that each segment sees, segment by segment: a prompt sees itself, a completion its prompt and
    itself. The ends, int32 (segments + 1,), are the boundaries of segments.
    """
    keys, queries, start = [], [], 0
    for prompt, *completions in layout:
        seen = torch.arange(start, start + prompt)
        keys.append(seen)
        start += prompt
        for completion in completions:
            keys.append(torch.cat([seen, torch.arange(start, start + completion)]))
            start += completion
        queries += [prompt, *completions]
    numbers = [len(places) for places in keys]
    ends = (
        torch.tensor([0, *itertools.accumulate(each)], dtype=torch.int32, device=device)
        for each in (numbers, queries)
    )
    return torch.cat(keys).to(device), *ends, max(queries), max(numbers)


def hidden_states(body, input_ids, layout):
    """Return the last hidden states (tokens, width) of a row of input_ids, int64 (tokens,), by a base model.

    With another attention than NAME, the sequences are rows of a batch, padded on the right: real tokens of
    a causal model never see tokens to their right. probe.py finds which of the two ways is exact.
    """
    if body.config._attn_implementation == NAME:
        row = ROW.set(Row(layout, spans(layout, input_ids.device) if _has_flash(input_ids.device) else None))
        try:
            at = positions(layout).to(input_ids.device)[None]
            return body(input_ids[None], position_ids=at, use_cache=False).last_hidden_state[0]
        finally:
            ROW.reset(row)
    rows = torch.nn.utils.rnn.pad_sequence(list(unpack(input_ids, layout, 0)), batch_first=True)
    states = body(rows, use_cache=False).last_hidden_state
    lengths = [prompt + completion for prompt, *completions in layout for completion in completions]
    return pack((row[:length] for row, length in zip(states, lengths, strict=True)), layout, 0)


def _has_flash(device):
    """Tell whether torch's flash kernel runs on a device: NVIDIA's GPUs since Ampere."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _attention(module, query, key, value, attention_mask, dropout=0.0, softcap=None, s_aux=None, **kwargs):
    """Compute attention within each sequence: (1, heads, tokens, width) each -> (1, tokens, heads, width).

    attention_mask: a Row. A layer's window is that of its mask, as in eager attention; `sliding_window` is
    a hint for other kernels.
    """
    row = attention_mask
    if not isinstance(row, Row):
        raise TypeError("its attention does not get its mask from transformers")
    half = value.dtype in (torch.float16, torch.bfloat16)
    plain = softcap is None and s_aux is None
    if row.spans is not None and half and plain and not dropout and value.shape[-1] <= WIDEST_HEAD:
        return _flash(query, key, value, row.spans, row.window, kwargs.get("scaling")), None
    outputs = []
    for states in zip(*(unpack(states, row.layout, 2) for states in (query, key, value)), strict=True):
        mask = _window(states[0], row.window)
        if plain:
            outputs.append(sdpa_attention_forward(module, *states, mask, dropout=dropout, **kwargs)[0])
        else:
            outputs.append(_capped(*states, mask, kwargs.get("scaling"), dropout, softcap, s_aux))
    return pack(outputs, row.layout, 1), None


def _capped(query, key, value, mask, scaling, dropout, softcap, sinks):
    """Compute one sequence's attention with logits within ±softcap, and with a sink per head (heads,) if any.

    SDPA has neither. mask: bool (1, 1, tokens, tokens), or None for causal. Softmax is float32, as in Gemma.
    """
    heads, tokens = query.shape[1:3]
    key, value = (states.repeat_interleave(heads // states.shape[1], dim=1) for states in (key, value))
    weights = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        weights = torch.tanh(weights / softcap) * softcap
    if mask is None:
        mask = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).tril()
    weights = weights.float().masked_fill(~mask, -torch.inf)
    if sinks is not None:
        weights = torch.cat([weights, sinks.float().view(1, -1, 1, 1).expand(1, -1, tokens, 1)], dim=-1)
    weights = weights.softmax(dim=-1)[..., :tokens].to(value.dtype)
    return (torch.nn.functional.dropout(weights, dropout) @ value).transpose(1, 2)


def _flash(query, key, value, spans, sliding_window, scaling):
    """Compute `_attention` in one call. Autocast leaves rotated queries and keys in float32."""
    from torch.nn.attention.varlen import varlen_attn  # takes 2 s, so import it only with the kernel

    keys, key_ends, query_ends, most_queries, most_keys = spans
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    attended = varlen_attn(
        query.to(value.dtype),
        key.to(value.dtype)[keys],
        value[keys],
        query_ends,
        key_ends,
        most_queries,
        most_keys,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        enable_gqa=True,
    )
    return attended[None]


def _window(query, size):
    """Return the mask (1, 1, tokens, tokens) of a sequence longer than a sliding window; None for others."""
    if size is None or query.shape[2] <= size:
        return None
    ones = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool, device=query.device)
    return ones.tril().triu(1 - size)[None, None]


def _mask(local_size=None, **kwargs):
    """Return the Row instead of a mask; local_size: the sliding window of its layers."""
    return ROW.get()._replace(window=local_size)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)

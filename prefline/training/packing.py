"""Sequences one after another in one row, without padding, and every prompt once for all its completions.

A row is made of groups, each a prompt and its completions:

    [prompt][chosen][rejected][prompt][chosen][rejected] …

The layout, a list of groups [prompt's length, a completion's, another's, …], says where they end. Positions
begin anew with every prompt and go on from its end in every completion. Whatever works token by token, which
is nearly all of the work, does so on the row as it is; attention alone has to know where what ends. In half
precision on a GPU it is one call of torch's flash kernel for sequences of many lengths, which lets a
completion's queries see the keys of its prompt and its own. Elsewhere attention takes the row apart into
sequences (the prompt and one completion), runs SDPA's causal kernel on each, and puts the row together again.
What transformers has of its own for packed rows is one mask of all tokens by all tokens, which loses the
causal kernel and grows with the square of the row, or needs flash-attn, and knows no shared prompts.

    measurements/logps.py measures it; docs/performance.md has the figures.
"""

import itertools
import os
from typing import NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "packed_sdpa"
WIDEST_HEAD = 256  # that the flash kernel takes


class Row(NamedTuple):
    """What attention is told of a row: its layout, and on a GPU its `spans`."""

    layout: list
    spans: tuple | None


def unpack(row, layout, dim):
    """Yield the sequences of a row, a tensor whose dimension `dim` is the row's tokens."""
    segments = iter(row.split([length for group in layout for length in group], dim))
    for group in layout:
        prompt = next(segments)
        for _ in group[1:]:
            yield torch.cat([prompt, next(segments)], dim)


def pack(sequences, layout, dim):
    """The row of an iterable of sequences, as `unpack` yields them; a prompt's tokens are its first's."""
    sequences, parts = iter(sequences), []
    for prompt, *completions in layout:
        parts.append(next(sequences))
        parts += [next(sequences).narrow(dim, prompt, completion) for completion in completions[1:]]
    return torch.cat(parts, dim)


def positions(layout):
    """The place of every token of a row in its sequence: int64 (tokens,)."""
    spans = []
    for prompt, *completions in layout:
        spans.append(torch.arange(prompt))
        spans += [torch.arange(prompt, prompt + completion) for completion in completions]
    return torch.cat(spans)


def spans(layout, device):
    """What the flash kernel has to know of a row: (keys, key_ends, query_ends, most_queries, most_keys).

    Its sequences are the row's segments: queries stay in the row's order, and `keys`, int64, are the places
    in the row that each segment sees, one segment's after another's: a prompt itself, a completion its prompt
    and itself. The ends, int32 (segments + 1,), say where a segment's begin and end.
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
    """The last hidden states (tokens, width) of a row of input_ids, int64 (tokens,), under a base model.

    A model that `switch_on` refused gets the sequences as rows of a batch, padded on the right: its real
    tokens never see what stands to their right.
    """
    if body.config._attn_implementation == NAME:
        row = Row(layout, spans(layout, input_ids.device) if _has_flash(input_ids.device) else None)
        at = positions(layout).to(input_ids.device)[None]
        return body(input_ids[None], position_ids=at, use_cache=False, row=row).last_hidden_state[0]
    rows = torch.nn.utils.rnn.pad_sequence(list(unpack(input_ids, layout, 0)), batch_first=True)
    states = body(rows, use_cache=False).last_hidden_state
    lengths = [prompt + completion for prompt, *completions in layout for completion in completions]
    return pack((row[:length] for row, length in zip(states, lengths, strict=True)), layout, 0)


def switch_on(model):
    """Have a PreTrainedModel attend within sequences, if it can; else it stays as it is, and a line says why.

    It can if all it does across tokens is attention by way of transformers' interface: then hidden states of
    a packed row equal those of its sequences, which is tried on a few tokens, under the autocast that is on.
    (A chunked attention would show on longer sequences only.) Raises torch.OutOfMemoryError.
    """
    before = model.config._attn_implementation
    if before != "sdpa":
        reason = f"its attention is {before}"
    elif getattr(model.config.get_text_config(), "attention_chunk_size", None) is not None:
        reason = "its attention is chunked"
    else:
        training = model.training
        model.eval()
        with torch.inference_mode():
            reason = _try(model)
        model.train(training)
        if reason is not None:
            model.set_attn_implementation(before)
    if reason is not None and os.environ.get("RANK", "0") == "0":
        print(f"{type(model).__name__}: sequences are padded, not packed: {reason}", flush=True)


def _try(model):
    """Switch on, and compare: None where nothing but rounding is different, else what is (str)."""
    layout = [[3, 4, 2], [1, 5]]
    ids = torch.arange(sum(map(sum, layout)), device=model.device) % model.config.get_text_config().vocab_size
    wanted = hidden_states(model.base_model, ids, layout)
    model.set_attn_implementation(NAME)
    try:
        got = hidden_states(model.base_model, ids, layout)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, IndexError, RuntimeError) as error:  # the row or its positions not taken
        return f"{type(error).__name__}: {error}".splitlines()[0]
    apart = ((got.float() - wanted.float()).norm() / wanted.float().norm()).item()
    autocast = torch.is_autocast_enabled(ids.device.type)
    dtype = torch.get_autocast_dtype(ids.device.type) if autocast else wanted.dtype
    if apart <= max(1e-4, 8 * torch.finfo(dtype).eps):
        return None
    return f"then its hidden states would be {apart:.1%} apart"


def _has_flash(device):
    """Whether torch's flash kernel runs there: on NVIDIA's GPUs since Ampere."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _attention(module, query, key, value, attention_mask, row, sliding_window=None, dropout=0.0, **kwargs):
    """Within each sequence: query, key, value (1, heads, tokens, width) -> (1, tokens, heads, width)."""
    half = value.dtype in (torch.float16, torch.bfloat16)
    if row.spans is not None and half and not dropout and value.shape[-1] <= WIDEST_HEAD:
        return _flash(query, key, value, row.spans, sliding_window, kwargs.get("scaling")), None
    outputs = []
    for states in zip(*(unpack(states, row.layout, 2) for states in (query, key, value)), strict=True):
        mask = _window(states[0], sliding_window)
        outputs.append(sdpa_attention_forward(module, *states, mask, dropout=dropout, **kwargs)[0])
    return pack(outputs, row.layout, 1), None


def _flash(query, key, value, spans, sliding_window, scaling):
    """As `_attention`, in one call. Autocast leaves queries and keys in float32, which were rotated."""
    from torch.nn.attention.varlen import varlen_attn  # 2 s, which only those pay who have the kernel

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
    """The mask (1, 1, tokens, tokens) of a sequence longer than a sliding window; None for others."""
    if size is None or query.shape[2] <= size:
        return None
    ones = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool, device=query.device)
    return ones.tril().triu(1 - size)[None, None]


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)

"""Compute log-probabilities of completions under a causal language model, for the reference and for training.

Sequences are packed into one row without padding, with each prompt once for all its completions
(packing.py). The head, the widest matrix of the model, is applied only to positions that predict completion
tokens, a chunk at a time. So float32 logits of shape (tokens, vocabulary) exist for one chunk only, also in
training, where chunks are recomputed. (Fused losses compute the head's gradients in the forward pass. That
is not possible here, since the weights of a sequence's tokens are only known after it.)

Textbook implementations compute padded prompts twice, apply the head to every padded position, and take one
log-softmax of all.
"""

import logging
import os
import shutil

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint
from transformers.utils import is_liger_kernel_available

from prefline.architectures import exact
from prefline.training import packing, precision, probe
from prefline.training.probe import ALONE, PACKED, PADDED, WAY

CHUNK_TOKENS, CPU_CHUNK_TOKENS = 512, 256  # whose float32 logits exist at once
CPU_TOKENS = 2048  # most tokens of a forward pass on a CPU; more are not faster


def batches(lengths, batch_tokens):
    """Return lists of indices into `lengths`, longest first, each within batch_tokens tokens.

    A sequence longer than batch_tokens is a batch alone. Every index is in exactly one list.
    """
    groups, group, tokens = [], [], 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if group and tokens + lengths[index] > batch_tokens:
            groups.append(group)
            group, tokens = [], 0
        group.append(index)
        tokens += lengths[index]
    return [*groups, group] if group else groups


def collate(groups):
    """Return prompts and their completions in one row: the tensors that completion_logps takes.

    groups: list of (prompt, [completion, …]), sequences of ids, no completion empty. Returns {"input_ids":
    int64 (tokens,), "layout": int64 (groups, 1 + most completions), lengths as packing.py has them, 0 where a
    group has fewer completions}.
    """
    segments = [[prompt, *completions] for prompt, completions in groups]
    layout = torch.zeros(len(segments), max(map(len, segments)), dtype=torch.int64)
    for row, group in zip(layout, segments, strict=True):
        row[: len(group)] = torch.tensor([len(ids) for ids in group])
    ids = [torch.as_tensor(ids, dtype=torch.int64) for group in segments for ids in group]
    return {"input_ids": torch.cat(ids), "layout": layout}


def completion_logps(model, input_ids, layout, temperature):
    """Return sums of the completions' token log-probabilities: float32 (S,), with gradients if enabled.

    input_ids, layout: as `collate` makes them, with S completions, which stay in order. temperature: float >
    0, divides the logits. The log-sum-exp and the sums are float32 whatever the dtype of the model. Nothing
    predicts the first token after an empty prompt, so it does not count. Raises InputError for a sequence
    that exact.check_length refuses.
    """
    causal_lm = _causal_lm(model)
    layout = [[prompt, *filter(None, completions)] for prompt, *completions in layout.tolist()]
    exact.check_length(causal_lm.config, max(group[0] + max(group[1:]) for group in layout))
    if getattr(causal_lm, WAY, PADDED) == ALONE:
        return _one_at_a_time(causal_lm, input_ids, layout, temperature)
    hidden = packing.hidden_states(causal_lm.base_model, input_ids, layout)
    predicting, targets, lengths = (part.to(input_ids.device) for part in _places(layout))
    hidden, targets = hidden[predicting], input_ids[targets]

    rows = CHUNK_TOKENS if input_ids.is_cuda else CPU_CHUNK_TOKENS
    parts = list(zip(hidden.split(rows), targets.split(rows), strict=True))
    if torch.is_grad_enabled() and len(parts) > 1:
        parts = [
            checkpoint(_token_logps, causal_lm, *part, temperature, use_reentrant=False) for part in parts
        ]
    else:
        parts = [_token_logps(causal_lm, *part, temperature) for part in parts]
    return torch.stack([tokens.sum() for tokens in torch.cat(parts).split(lengths.tolist())])


def _one_at_a_time(causal_lm, input_ids, layout, temperature):
    """Compute completion_logps by the model's own forward pass on each sequence, the exact way."""
    sums = []
    prompts = (prompt for prompt, *completions in layout for _ in completions)
    for ids, prompt in zip(packing.unpack(input_ids, layout, 0), prompts, strict=True):
        logits = causal_lm(input_ids=ids[None], use_cache=False).logits[0].float()
        first = max(prompt, 1)
        sums.append(_gathered(logits[first - 1 : -1], ids[first:], temperature).sum())
    return torch.stack(sums)


def score(model, prompts, completions, temperature, batch_tokens):
    """Yield (indices, completion_logps of these sequences as a list of float) batch by batch, longest first.

    prompts, completions: lists of S sequences of ids. Every index is in exactly one batch; equal prompts are
    computed once. There are no gradients.
    """
    groups = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(np.asarray(prompt, np.int64).tobytes(), []).append(index)
    groups = [(prompts[group[0]], group) for group in groups.values()]
    lengths = [len(prompt) + sum(len(completions[index]) for index in group) for prompt, group in groups]
    if model.device.type == "cpu":
        batch_tokens = min(batch_tokens, CPU_TOKENS)
    for numbers in batches(lengths, batch_tokens):
        batch = collate(
            [(groups[number][0], [completions[index] for index in groups[number][1]]) for number in numbers]
        )
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        with torch.inference_mode(), precision.computing(model):
            sums = completion_logps(model, **batch, temperature=temperature)
        yield [index for number in numbers for index in groups[number][1]], sums.tolist()


def load(directory, dtype, attn_implementation="sdpa"):
    """Load the language model of a directory, on a GPU if there is one, prepared to score; dtype: str."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    attention = exact.attention(config, attn_implementation)
    model = precision.load(AutoModelForCausalLM, directory, dtype, attn_implementation=attention)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    with precision.computing(model):
        prepare(model, attn_implementation)
    return model


def prepare(model, attn_implementation="sdpa"):
    """Make a model compute its sequences in the fastest way that is exact; call this first.

    attn_implementation: the configured kernel; with sdpa, attention may be that of packed rows, or eager.
    The model must already be on its device and under its autocast: kernels depend on both (`_fuse`), and
    flash-attn has none for float32. Raises InputError if no way is exact.
    """
    causal_lm = _causal_lm(model)
    way, kernel = probe.way(causal_lm.config, attn_implementation)
    probe.hold_still(causal_lm)
    if way == PACKED:
        before = causal_lm.config._attn_implementation
        causal_lm.set_attn_implementation(packing.NAME)
        reason = _trial(causal_lm)
        if reason is not None:
            causal_lm.set_attn_implementation(before)
            way, kernel = probe.way(causal_lm.config, attn_implementation, (PADDED, ALONE))
            exact.say(f"{type(causal_lm).__name__}: sequences are {way}, not packed: {reason}")
    if way != PACKED and causal_lm.config._attn_implementation != kernel:
        causal_lm.set_attn_implementation(kernel)
    setattr(causal_lm, WAY, way)
    _fuse(causal_lm)


def check(model):
    """Make a model score its sequences without a change of its attention; trainers compute it on padded rows.

    Raises InputError if no way is exact.
    """
    causal_lm = _causal_lm(model)
    way, _ = probe.way(causal_lm.config, causal_lm.config._attn_implementation, (PADDED, ALONE), quiet=True)
    setattr(causal_lm, WAY, way)


def _trial(causal_lm):
    """Return the reason (str) why this device does not run packed rows, or None; pass on OutOfMemoryError."""
    ids = torch.arange(15, device=causal_lm.device) % causal_lm.config.get_text_config().vocab_size
    training = causal_lm.training
    causal_lm.eval()
    try:
        with torch.inference_mode():
            packing.hidden_states(causal_lm.base_model, ids, [[3, 4, 2], [1, 5]])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return exact.reason_of(error)
    finally:
        causal_lm.train(training)


def _fuse(causal_lm):
    """Let Liger's kernels compute norms, rotations and gated products on a GPU, if they are installed.

    They fuse small kernels of transformers; only rounding changes. They are compiled at first use, which
    needs a C compiler.
    """
    compiler = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("clang")
    if causal_lm.device.type == "cuda" and is_liger_kernel_available() and compiler:
        from transformers.integrations.liger import apply_liger_kernel

        logging.getLogger("liger_kernel").setLevel(logging.ERROR)  # it warns about absent hardware
        apply_liger_kernel(causal_lm, {"cross_entropy": False, "fused_linear_cross_entropy": False})


def _places(layout):
    """Return the positions that predict a row's completions, their tokens, and their lengths: int64 tensors.

    The first two are places in the row: of the token before each completion token (for the first, the
    prompt's last), and of the completion token. After an empty prompt they begin with the second token.
    """
    predicting, targets, start = [], [], 0
    for prompt, *completions in layout:
        last = start + prompt - 1
        start += prompt
        for completion in completions:
            places = torch.arange(start, start + completion)
            predicting += [torch.tensor([last])[:prompt], places[:-1]]
            targets.append(places if prompt else places[1:])
            start += completion
    return torch.cat(predicting), torch.cat(targets), torch.tensor([len(places) for places in targets])


def _causal_lm(model):
    """Return the language model, without PEFT's wrapper if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _logits(causal_lm, hidden):
    """Return float32 logits (…, vocabulary) of hidden states (…, width), as the model's forward does."""
    logits, config = causal_lm.get_output_embeddings()(hidden).float(), causal_lm.config
    if getattr(config, "logit_scale", None) is not None:  # Cohere
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:  # Granite
        logits = logits / config.logits_scaling
    if getattr(config, "final_logit_softcapping", None) is not None:  # Gemma 2 and later
        logits = torch.tanh(logits / config.final_logit_softcapping) * config.final_logit_softcapping
    return logits


def _token_logps(causal_lm, hidden, targets, temperature):
    """Return the log-probability of each target: float32 (tokens,), from hidden (tokens, width)."""
    return _gathered(_logits(causal_lm, hidden), targets, temperature)


def _gathered(logits, targets, temperature):
    """Return the log-probability of each target: float32 (tokens,), from logits (tokens, vocabulary)."""
    if temperature != 1:
        logits = logits / temperature
    return logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=1)

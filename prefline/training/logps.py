"""Log-probabilities of completions under a causal language model, for the reference and for training alike.

Sequences stand one after another in one row, without padding, and a prompt stands there once for all its
completions (packing.py). The head, the widest matrix of the model, is applied to the positions that predict
completion tokens and to nothing else, a chunk at a time: float32 logits of shape (tokens, vocabulary) exist
for one chunk only, in training too, where the chunks are recomputed. (Gradients of the head cannot be had
without that, as fused losses have them: what weighs a sequence's tokens is known after the forward pass.)

Textbook implementations run padded prompts twice, the head over every padded position, and take one
log-softmax of it all.
"""

import logging
import os
import shutil

import torch
from torch.utils.checkpoint import checkpoint
from transformers.utils import is_liger_kernel_available

from prefline.errors import InputError
from prefline.training import packing

CHUNK_TOKENS, CPU_CHUNK_TOKENS = 512, 256  # whose float32 logits exist at once
CPU_TOKENS = 2048  # most tokens of a forward pass on a CPU, which more make no faster


def batches(lengths, batch_tokens):
    """Lists of indices into `lengths`, longest first, each within batch_tokens tokens.

    What is longer than batch_tokens is a batch of its own. Every index is in exactly one list.
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
    """Prompts and their completions in one row: the tensors that completion_logps takes.

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
    """Sums of the log-probabilities of the completions' tokens: float32 (S,), with gradients if enabled.

    input_ids, layout: as `collate` makes them, with S completions, which stay in order. temperature: float >
    0, divides the logits. The log-sum-exp and the sums are float32 whatever the dtype of the model. Nothing
    predicts the first token after an empty prompt, so it does not count.
    """
    causal_lm = _causal_lm(model)
    layout = [[prompt, *filter(None, completions)] for prompt, *completions in layout.tolist()]
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


def score(model, prompts, completions, temperature, batch_tokens):
    """Yield (indices, completion_logps of these sequences as a list of float) batch by batch, longest first.

    prompts, completions: lists of S lists of ids. Every index is in exactly one batch; equal prompts are
    computed once. There are no gradients.
    """
    groups = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(tuple(prompt), []).append(index)
    groups = list(groups.items())
    lengths = [len(prompt) + sum(len(completions[index]) for index in group) for prompt, group in groups]
    if model.device.type == "cpu":
        batch_tokens = min(batch_tokens, CPU_TOKENS)
    for numbers in batches(lengths, batch_tokens):
        batch = collate(
            [(groups[number][0], [completions[index] for index in groups[number][1]]) for number in numbers]
        )
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        with torch.inference_mode():
            sums = completion_logps(model, **batch, temperature=temperature)
        yield [index for number in numbers for index in groups[number][1]], sums.tolist()


def load(directory, dtype):
    """The language model of a directory, on the GPU if there is one, prepared to score; dtype: str."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, use_safetensors=True, trust_remote_code=False
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    prepare(model)
    return model


def prepare(model):
    """Have a model compute packed rows, where its architecture can; call it once, before anything else here.

    The model is on the device that it is to stay on, and under the autocast that it is to compute under:
    kernels go with both (packing.switch_on, `_fuse`), and flash-attn has none for float32.
    Raises InputError as `check` does.
    """
    check(model)
    causal_lm = _causal_lm(model)
    packing.switch_on(causal_lm)
    _fuse(causal_lm)


def check(model):
    """Raise InputError if the architecture does more to its logits than _logits knows; it stays as it is.

    By comparison on a few tokens: reaching for body and head by hand skips it, and wrong log-probabilities
    must not come of that in silence. For a model that others train, on padded rows: `prepare` would have it
    refuse them.
    """
    training, causal_lm = model.training, _causal_lm(model)
    model.eval()
    input_ids = torch.arange(8, device=model.device)[None] % model.get_input_embeddings().weight.shape[0]
    with torch.inference_mode():
        wanted = model(input_ids=input_ids, use_cache=False).logits.float()
        got = _logits(causal_lm, causal_lm.base_model(input_ids=input_ids, use_cache=False).last_hidden_state)
    model.train(training)
    if (got - wanted).abs().max() > 1e-2 * wanted.abs().max():
        raise InputError(
            f"{type(causal_lm).__name__} changes its logits after the head in a way that "
            "prefline/training/logps.py does not know; add it to _logits there"
        )


def _fuse(causal_lm):
    """Have Liger's kernels do norms, rotations and gated products on a GPU, if they are installed and run.

    What is many small kernels in transformers is one of each; nothing but rounding changes. They are compiled
    as they are first used, which takes a C compiler.
    """
    compiler = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("clang")
    if causal_lm.device.type == "cuda" and is_liger_kernel_available() and compiler:
        from transformers.integrations.liger import apply_liger_kernel

        logging.getLogger("liger_kernel").setLevel(logging.ERROR)  # it says which hardware it has not got
        apply_liger_kernel(causal_lm, {"cross_entropy": False, "fused_linear_cross_entropy": False})


def _places(layout):
    """What a row's completions are predicted from, what they are, and their lengths: int64 tensors.

    The first two are places in the row, a completion's one after another: of the token before, the prompt's
    last for the first, and of the token itself. After an empty prompt they begin with the second token.
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
    """The language model itself: the one inside, where PEFT wraps it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _logits(causal_lm, hidden):
    """Float32 logits (…, vocabulary) of hidden states (…, width), as the model's own forward has them."""
    logits, config = causal_lm.get_output_embeddings()(hidden).float(), causal_lm.config
    if getattr(config, "logit_scale", None) is not None:  # Cohere
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:  # Granite
        logits = logits / config.logits_scaling
    if getattr(config, "final_logit_softcapping", None) is not None:  # Gemma 2 and later
        logits = torch.tanh(logits / config.final_logit_softcapping) * config.final_logit_softcapping
    return logits


def _token_logps(causal_lm, hidden, targets, temperature):
    """Log-probability of each target: float32 (tokens,), from hidden (tokens, width), targets (tokens,)."""
    logits = _logits(causal_lm, hidden)
    if temperature != 1:
        logits = logits / temperature
    return logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=1)

"""Log-probabilities of completions under a causal language model, for the reference and for training alike.

Sequences are padded on the right only and batched by length within a budget of tokens, so little is spent
on padding. A causal model's real tokens never see what stands to their right: no attention mask is passed,
and attention runs its plain causal kernel. The head, the widest matrix of the model, is applied to the
positions that predict completion tokens and to nothing else, a chunk at a time: float32 logits of shape
(tokens, vocabulary) exist for one chunk only, in training too, where the chunks are recomputed.

Textbook implementations run the head over every padded position and take one log-softmax of it all.
"""

import torch
from torch.utils.checkpoint import checkpoint

from scripts.common.errors import InputError

CHUNK_LOGITS = 2**26  # float32 logits of one chunk: 256 MiB


def batches(lengths, batch_tokens):
    """Lists of indices into `lengths`, longest sequences first, each within batch_tokens padded tokens.

    A sequence longer than batch_tokens is a batch of its own. Every index is in exactly one list.
    """
    groups, group = [], []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if group and lengths[group[0]] * (len(group) + 1) > batch_tokens:
            groups.append(group)
            group = []
        group.append(index)
    return [*groups, group] if group else groups


def collate(prompts, completions):
    """Prompts and their completions, right-padded side by side: the tensors that completion_logps takes.

    prompts, completions: lists of S sequences of ids, none of them empty. Returns {"input_ids": int64
    (S, longest), "starts": int64 (S,), where the completion begins, "ends": int64 (S,), one past its end}.
    """
    starts = [len(prompt) for prompt in prompts]
    ends = [start + len(completion) for start, completion in zip(starts, completions, strict=True)]
    input_ids = torch.zeros(len(ends), max(ends), dtype=torch.int64)
    for row, prompt, completion, start, end in zip(
        input_ids, prompts, completions, starts, ends, strict=True
    ):
        row[:start] = torch.as_tensor(prompt)
        row[start:end] = torch.as_tensor(completion)
    return {"input_ids": input_ids, "starts": torch.tensor(starts), "ends": torch.tensor(ends)}


def completion_logps(model, input_ids, starts, ends, temperature):
    """Sums of the log-probabilities of the completions' tokens: float32 (S,), with gradients if enabled.

    input_ids, starts, ends: as `collate` makes them. temperature: float > 0, divides the logits. The
    log-sum-exp and the sums are float32 whatever the dtype of the model.
    """
    causal_lm = _causal_lm(model)
    hidden = causal_lm.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)
    predicting = (positions >= starts[:, None] - 1) & (positions < ends[:, None] - 1)
    hidden, targets = hidden[predicting], input_ids.roll(-1, dims=1)[predicting]

    rows = max(1, CHUNK_LOGITS // causal_lm.get_output_embeddings().weight.shape[0])
    parts = list(zip(hidden.split(rows), targets.split(rows), strict=True))
    if torch.is_grad_enabled() and len(parts) > 1:
        parts = [
            checkpoint(_token_logps, causal_lm, *part, temperature, use_reentrant=False) for part in parts
        ]
    else:
        parts = [_token_logps(causal_lm, *part, temperature) for part in parts]
    table = torch.zeros(predicting.shape, dtype=torch.float32, device=hidden.device)
    return table.masked_scatter(predicting, torch.cat(parts)).sum(dim=1)


def score(model, prompts, completions, temperature, batch_tokens):
    """Yield (indices, completion_logps of these sequences as a list of float) batch by batch, longest first.

    Every index is in exactly one batch; there are no gradients.
    """
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    for group in batches(lengths, batch_tokens):
        batch = collate([prompts[index] for index in group], [completions[index] for index in group])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        with torch.inference_mode():
            sums = completion_logps(model, **batch, temperature=temperature)
        yield group, sums.tolist()


def check_head(model):
    """Compare _logits with the model's own on a few tokens; InputError if the architecture does more.

    Reaching for body and head by hand skips whatever an architecture does to its logits afterwards: wrong
    log-probabilities must not come of that in silence.
    """
    training = model.training
    model.eval()
    input_ids = torch.arange(8, device=model.device)[None] % model.get_input_embeddings().weight.shape[0]
    with torch.inference_mode():
        wanted = model(input_ids=input_ids, use_cache=False).logits.float()
        causal_lm = _causal_lm(model)
        got = _logits(causal_lm, causal_lm.base_model(input_ids=input_ids, use_cache=False).last_hidden_state)
    model.train(training)
    if (got - wanted).abs().max() > 1e-2 * wanted.abs().max():
        raise InputError(
            f"{type(causal_lm).__name__} changes its logits after the head in a way that "
            "scripts/common/logps.py does not know; add it to _logits there"
        )


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

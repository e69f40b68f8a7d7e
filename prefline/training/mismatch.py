"""Compare a sampler's log-probabilities of the tokens that it drew with the trainer's.

Where other code samples than trains, or weights were rounded, they differ. In float32 that is by rounding
only. A difference beyond LIMITS means that the sampler does not have the policy's weights, or not its
architecture: then the training stops. Importance sampling corrects for smaller ones, with ratios that are
cut off (`ratios`), as in TRL, verl and open-instruct.
"""

import torch

from prefline.errors import InputError

# The most nats of a single token ("largest"), or of a sampling's mean. In bfloat16, rounding changes single
# tokens as much as a step of training does: docs/online.md has what was measured.
LIMITS = {"float32": ("largest", 0.01), "bfloat16": ("mean", 0.1)}
FAR = 2.0  # a ratio of probabilities beyond which, or below whose inverse, a token is counted


def rows(said, like):
    """Return the log-probabilities of samplers (lists of float) as a tensor like `like`, padded with 0."""
    padded = torch.zeros_like(like)
    for row, logps in enumerate(said):
        padded[row, : len(logps)] = torch.tensor(logps, dtype=like.dtype)
    return padded


def measure(logps, sampled, mask):
    """Return {name: float} for the log: how far two log-probabilities of the same tokens are apart.

    logps, sampled: float [n, c], the trainer's and the sampler's; mask: [n, c], tokens of completions. k3 is
    the estimate of the KL between them that is never negative (http://joschu.net/blog/kl-approx.html).
    """
    difference = (logps - sampled)[mask.bool()].double()
    far = (difference.exp() > FAR) | (difference.exp() < 1 / FAR)
    return {
        "sampling/logp_difference": difference.abs().mean().item(),
        "sampling/logp_difference_max": difference.abs().max().item(),
        "sampling/k3": (difference.exp() - 1 - difference).mean().item(),
        "sampling/ratio_outside": far.double().mean().item(),
    }


def check(measured, dtype, when):
    """Raise InputError if a sampler is too far from the trainer; dtype: str; when: str, for the message."""
    kind, limit = LIMITS[dtype]
    found = measured["sampling/logp_difference_max" if kind == "largest" else "sampling/logp_difference"]
    if not found <= limit:  # or NaN
        raise InputError(
            f"{when}: the sampler's log-probabilities are {found:.3g} nats per token from the trainer's "
            f"({kind}; at most {limit} in {dtype}): it lacks the policy's weights, or computes another "
            "model; take online.sampler: transformers, and report this architecture"
        )


def ratios(differences, most):
    """Return weights that correct for another sampler: exp(differences), at most `most`; None: 1.

    differences: log-probabilities of the trainer less those of the sampler, of a token or a completion.
    Truncated importance sampling: Ionides 2008; as `token_truncate` in TRL and rollout_is in verl.
    """
    return torch.ones_like(differences) if most is None else differences.exp().clamp(max=most)

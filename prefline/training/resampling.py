"""More rounds of sampling in a step, for prompts whose completions all have the same reward.

Prompts that are always or never solved have no gradient (dynamic sampling of DAPO, arXiv 2503.14476).
"""

import random

import torch
from torch.nn.functional import pad

from prefline import seeds


def other_prompts(names, seed, step, round_number, shared, process, num_generations):
    """Return the names of the prompts that a process samples in a round instead of its own `shared` rows.

    names: list of str, all prompts; process: (its number, the number of processes). No process and no
    resumed training draws others.
    """
    index, processes = process
    groups = shared // num_generations
    draws = random.Random(seeds.derive(seed, "resampled prompts", step, round_number))
    drawn = draws.sample(names, groups * processes)[index * groups : (index + 1) * groups]
    return [name for name in drawn for _ in range(num_generations)]


def replaced(batch, differing, other, other_differing, num_generations):
    """Return (batch, differing), with groups of `other` in place of groups without a difference.

    batch, other: {name: tensor of as many rows, or without rows} as TRL makes them, `prompt_…` padded on the
    left and `completion_…` on the right; differing, other_differing: bool [groups].
    """
    idle, useful = (~differing).nonzero().flatten(), other_differing.nonzero().flatten()
    count = min(len(idle), len(useful))
    to, of = (_rows(groups[:count], num_generations) for groups in (idle, useful))
    made = {}
    for name, tensor in batch.items():
        made[name] = tensor
        if tensor.ndim:
            left = name.startswith("prompt_")
            made[name], theirs = _as_wide(tensor, other[name], left)
            made[name][to] = theirs[of]
    differing = differing.clone()
    differing[idle[:count]] = True
    return made, differing


def _rows(groups, size):
    return (groups[:, None] * size + torch.arange(size, device=groups.device)).flatten()


def _as_wide(one, other, left):
    """Return copies of two tensors with rows, padded with 0 to the same width."""
    if one.ndim == 1:
        return one.clone(), other
    missing = other.shape[1] - one.shape[1]
    sizes = max(missing, 0), max(-missing, 0)
    return tuple(
        pad(tensor, (size, 0) if left else (0, size)).clone()
        for tensor, size in zip((one, other), sizes, strict=True)
    )

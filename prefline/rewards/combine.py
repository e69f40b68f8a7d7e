"""Combine several rewards of a policy's completions into one that ranks them, and into win probabilities.

Rewards of different kinds have different scales: `normalize` subtracts a mean and divides by a standard
deviation before the weights count. "policy" takes both over the completions to the policy's training prompts
(held-out ones are not used), "prompt" over the completions to the same prompt, as in GRPO.
"""

import math
from typing import NamedTuple

import numpy as np

from prefline.data import tables
from prefline.errors import InputError

SMALLEST_SPREAD = 1e-8


class Scored(NamedTuple):
    """The scores of a shard: {prompt_id: {sample: float, None where a reward is missing}}."""

    rewards: dict  # the weighted sums
    wins: dict  # the probabilities of beating another completion of the prompt


def scales(paths, weighting):
    """Return {reward: its `scale` over all training prompts} of the rewards that "policy" normalizes.

    paths: {reward: its files of all shards of training prompts}; weighting: {reward: {"kind", "weight",
    "normalize"}}. Raises as read_rewards.
    """
    found = {}
    for name, files in paths.items():
        if weighting[name]["normalize"] == "policy":
            found[name] = scale(np.concatenate([np.empty(0), *(read_rewards(path)[1] for path in files)]))
    return found


def scale(rewards):
    """Return (mean, standard deviation) of an array of rewards, NaN where there is none; None of none."""
    known = rewards[~np.isnan(rewards)]
    return (known.mean(), known.std()) if len(known) else None


def score_shard(paths, weighting, scales):
    """Return the `Scored` of a shard. paths: {reward: its file}; weighting, scales: as `scales` has them.

    Raises InputError for a reward that is not finite, and for files that score different completions.
    """
    files = {name: (paths[name], *read_rewards(paths[name])) for name in weighting}
    first, keys, _ = files[min(weighting)]
    for path, others, _ in files.values():
        if others != keys:
            raise InputError(f"{path}: scores other completions than {first}; delete both files")
    values = {name: found for name, (_, _, found) in files.items()}
    _, prompts = np.unique([prompt_id for prompt_id, _ in keys], return_inverse=True)
    rewards = combined(values, weighting, prompts, scales)
    if [one["kind"] for one in weighting.values()] == ["pairwise"]:
        wins = values[min(weighting)]
    else:
        wins = win_probabilities(rewards, prompts)
    return Scored(_nested(keys, rewards), _nested(keys, wins))


def read_rewards(path):
    """Return (keys, values): (prompt_id, sample) of each row, and a float64 array, NaN without a reward."""
    table = tables.read(path, tables.REWARDS)
    keys = list(zip(table["prompt_id"].to_pylist(), table["sample"].to_pylist(), strict=True))
    for (prompt_id, sample), reward in zip(keys, table["reward"].to_pylist(), strict=True):
        if reward is not None and not math.isfinite(reward):
            raise InputError(
                f"{path}: prompt_id {prompt_id}, sample {sample} has the reward {reward}; score again in "
                "float32 (its dtype in the config), or with another reward model"
            )
    return keys, table["reward"].to_numpy().astype(np.float64)


def _nested(keys, values):
    found = {}
    for (prompt_id, sample), value in zip(keys, values.tolist(), strict=True):
        found.setdefault(prompt_id, {})[sample] = None if math.isnan(value) else value
    return found


def normalized(rewards, normalize, prompts, scale):
    """Return `rewards` (float64 array [n], NaN if missing) scaled to mean 0 and deviation 1 by `normalize`.

    prompts: int array [n], the prompt of each; scale: (mean, deviation) of the policy's, or None for none. If
    all completions have the same reward, all become 0.
    """
    if normalize == "none":
        return rewards
    found = ~np.isnan(rewards)
    made = np.full(len(rewards), np.nan)
    if normalize == "policy":
        if scale is not None:
            made[found] = _standardized(rewards[found], *scale)
        return made
    for rows in _by_prompt(prompts):
        rows = rows[found[rows]]
        if len(rows):
            made[rows] = _standardized(rewards[rows], rewards[rows].mean(), rewards[rows].std())
    return made


def _standardized(values, mean, spread):
    # Equal floats may have a mean that is not quite theirs.
    return (values - mean) / spread if spread > SMALLEST_SPREAD else np.zeros(len(values))


def combined(rewards, weighting, prompts, scales):
    """Return the rewards that rank (float64 array [n]): the weighted sum, NaN where one of them is missing.

    rewards: {name: float64 array [n]}; weighting: {name: {"weight", "normalize"}}; scales: {name: `scale`}
    for those that "policy" normalizes; prompts: as in `normalized`. Summed in the order of the names, so that
    the same config always gives the same floats.
    """
    parts = [
        weighting[name]["weight"]
        * normalized(rewards[name], weighting[name]["normalize"], prompts, scales.get(name))
        for name in sorted(weighting)
    ]
    return np.sum(parts, axis=0)


def win_probabilities(rewards, prompts):
    """Return each completion's probability (float64 array [n]) of beating a random one to its prompt.

    rewards: float64 array [n], NaN where there is none; prompts: int array [n]. By Bradley and Terry: the
    sigmoid of a difference of rewards. Each meets itself, too, at 1/2, which makes it the estimate of
    P(y > policy | x) in SPPO (Wu et al. 2024, arXiv 2405.00675).
    """
    made = np.full(len(rewards), np.nan)
    for rows in _by_prompt(prompts):
        rows = rows[~np.isnan(rewards[rows])]
        differences = rewards[rows][:, None] - rewards[rows][None, :]
        if len(rows):
            made[rows] = (0.5 * (1 + np.tanh(differences / 2))).mean(1)
    return made


def _by_prompt(prompts):
    """Return the rows (int arrays) of each prompt."""
    order = np.argsort(prompts, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(prompts[order])) + 1)

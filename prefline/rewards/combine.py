"""Several rewards of one policy's completions into the one that ranks them, and into win probabilities.

Rewards of different kinds have different scales: `normalize` takes off a mean and divides by a standard
deviation before the weights count. Those of "policy" are over the completions to the policy's training
prompts (held-out prompts tell nothing), those of "prompt" over the completions to the same prompt, as in
GRPO.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefline.data import tables
from prefline.errors import InputError

SMALLEST_SPREAD = 1e-8


class Scored(NamedTuple):
    """What a shard's completions are worth: {prompt_id: {sample: float, None where a reward is missing}}."""

    rewards: dict  # the weighted sums
    wins: dict  # the probabilities of beating another completion of the prompt


def score_shards(paths, weighting):
    """{shard: Scored} of all shards together: means and spreads may be those of the whole policy.

    paths: parquet files, …/REWARD/SHARD.parquet, one for every reward and shard; weighting: {reward: {"kind",
    "weight", "normalize"}}. Raises InputError for a reward that is not finite, and for files that score
    different completions.
    """
    found = {name: {} for name in weighting}
    for path in sorted(paths):
        found[Path(path).parent.name][path] = read_rewards(path)
    first = found[min(weighting)]
    for files_of in found.values():
        for (path, (keys, _)), (other, (wanted, _)) in zip(files_of.items(), first.items(), strict=True):
            if keys != wanted:
                raise InputError(f"{path}: scores other completions than {other}; delete both files")
    keys = [key for keys, _ in first.values() for key in keys]
    values = {
        name: np.concatenate([values for _, values in files_of.values()]) for name, files_of in found.items()
    }
    _, prompts = np.unique([prompt_id for prompt_id, _ in keys], return_inverse=True)
    sizes = [len(keys) for keys, _ in first.values()]
    training = np.repeat([split_of(path) == "train" for path in first], sizes)
    rewards = combined(values, weighting, prompts, training)
    if [one["kind"] for one in weighting.values()] == ["pairwise"]:
        wins = values[min(weighting)]
    else:
        wins = win_probabilities(rewards, prompts)
    ends = np.cumsum(sizes)[:-1]
    return {
        Path(path).stem: Scored(_nested(keys, part), _nested(keys, winning))
        for (path, (keys, _)), part, winning in zip(
            first.items(), np.split(rewards, ends), np.split(wins, ends), strict=True
        )
    }


def read_rewards(path):
    """(keys, values): (prompt_id, sample) of each row, and a float64 array, NaN where there is no reward."""
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


def split_of(path):
    """The split (str) of a shard's path: train of …/train-00000.parquet."""
    split = Path(path).stem.rsplit("-", 1)[0]
    if split not in ("train", "test"):
        raise InputError(f"{path}: a shard is called train-NNNNN.parquet or test-NNNNN.parquet")
    return split


def normalized(rewards, normalize, prompts, training):
    """`rewards` (float64 array [n], NaN where there is none) with mean 0 and spread 1, as `normalize` says.

    prompts: int array [n], the prompt of each; training: bool array [n], whether its prompt is a training
    one. Completions that are all alike become 0.
    """
    if normalize == "none":
        return rewards
    found = ~np.isnan(rewards)
    made = np.full(len(rewards), np.nan)
    if normalize == "policy":
        known = rewards[found & training]
        if len(known):
            made[found] = _standardized(rewards[found], known)
        return made
    for rows in _by_prompt(prompts):
        rows = rows[found[rows]]
        if len(rows):
            made[rows] = _standardized(rewards[rows], rewards[rows])
    return made


def _standardized(values, known):
    spread = known.std()
    # Equal floats may have a mean that is not quite theirs.
    return (values - known.mean()) / spread if spread > SMALLEST_SPREAD else np.zeros(len(values))


def combined(rewards, weighting, prompts, training):
    """The rewards that rank (float64 array [n]): the weighted sum, NaN where one of them is missing.

    rewards: {name: float64 array [n]}; weighting: {name: {"weight", "normalize"}}; the rest as in
    `normalized`. Summed in the order of the names, so that the same config always gives the same floats.
    """
    parts = [
        weighting[name]["weight"] * normalized(rewards[name], weighting[name]["normalize"], prompts, training)
        for name in sorted(weighting)
    ]
    return np.sum(parts, axis=0)


def win_probabilities(rewards, prompts):
    """For each completion, the probability (float64 array [n]) of beating one to the same prompt at random.

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
    """The rows (int arrays) of each prompt."""
    order = np.argsort(prompts, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(prompts[order])) + 1)

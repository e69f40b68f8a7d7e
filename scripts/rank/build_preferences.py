"""Turn scored completions into preference pairs.

For each prompt, completions with the same text count once, and the rest is ranked by reward: the weighted sum
of all rewards (prefline/rewards/combine.py), less --length-penalty for every token. A completion that a
reward is missing of (the engine gave it up, a judge did not score it) is left out. `chosen` is the best one
that may be chosen; `rejected` comes from those below it, by --strategy:

    max_min     the worst
    max_second  the next best
    max_random  any, at random
    random      two random completions, the better one as chosen

Equal rewards are ranked by a seeded hash, not by sample number, which would favour the first. Completions cut
off at the token limit are dropped, may only be rejected, or count like the others (--truncated). A prompt
yields no pair, and is counted under one reason, when it has

    too_few         fewer than two completions, or none that may be chosen
    identical_text  fewer than two texts
    truncated_best  no completion that may be chosen above another one
    margin          a pair whose rewards differ by --min-margin or less

    reads   all shards of prompts, completions and rewards of a policy, one after another
    writes  the columns of tables.PREFERENCES and, for every completion, of tables.RANKED: there the reward is
            without the penalty. Win probabilities are a pairwise model's if it is the only reward, else those
            that the rewards have as a Bradley-Terry model's

    python -m scripts.rank.build_preferences --samples results/samples/sft \\
        --shards '{"test": 1, "train": 5}' \\
        --weighting '{"reward_model": {"kind": "classifier", "weight": 1.0, "normalize": "none"}}' \\
        --num-completions 5 --strategy max_min --length-penalty 0.0 --min-margin 0.0 --truncated drop \\
        --seed 1 --out preferences.parquet --ranked ranked.parquet --metrics preferences.json
"""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from prefline import errors, files, seeds
from prefline.config import section
from prefline.data import prompts, tables
from prefline.errors import InputError
from prefline.rewards import combine, rank_metrics

REASONS = ("too_few", "identical_text", "truncated_best", "margin")


class Candidate(NamedTuple):
    """A completion of a prompt, as the ranking sees it."""

    sample: int
    text: str
    reward: float  # float32, less the length penalty
    truncated: bool


def candidates(rows, scores, length_penalty):
    """Return the `Candidate` of each row of completions (list of dicts) that has a reward.

    scores: {sample: reward, or None where one is missing}.
    """
    return [
        Candidate(
            sample=row["sample"],
            text=row["completion"],
            reward=float(np.float32(scores[row["sample"]] - length_penalty * len(row["completion_ids"]))),
            truncated=row["finish_reason"] == "length",
        )
        for row in rows
        if scores[row["sample"]] is not None
    ]


def distinct(found, seed, prompt_id):
    """Return one candidate for each text, in arbitrary order: a finished one before a truncated one."""
    by_text = {}

    def order(one):
        return one.truncated, seeds.derive(seed, "tie", prompt_id, one.sample)

    for candidate in sorted(found, key=order):
        by_text.setdefault(candidate.text, candidate)
    return list(by_text.values())


def pair(found, strategy, min_margin, truncated, seed, prompt_id):
    """Return (chosen, rejected) of a prompt's list of `Candidate`, or the reason (of REASONS) for neither.

    Does not depend on the order of `found`.
    """
    if truncated == "drop":
        found = [one for one in found if not one.truncated]
    choosable = [one for one in found if truncated != "keep_as_rejected" or not one.truncated]
    if len(found) < 2 or not choosable:
        return "too_few"
    found = distinct(found, seed, prompt_id)
    if len(found) < 2:
        return "identical_text"

    def draw(candidate):
        return seeds.derive(seed, strategy, prompt_id, candidate.sample)

    if strategy == "random":
        found = sorted(found, key=draw)[:2]
    ranked = sorted(found, key=lambda one: (-one.reward, seeds.derive(seed, "tie", prompt_id, one.sample)))
    best = next((place for place, one in enumerate(ranked) if one in choosable), len(ranked))
    below = ranked[best + 1 :]
    if not below:
        return "truncated_best"
    chosen = ranked[best]
    if strategy == "max_min":
        rejected = below[-1]
    elif strategy == "max_random":
        rejected = min(below, key=draw)
    else:
        rejected = below[0]
    if chosen.reward - rejected.reward <= min_margin:
        return "margin"
    return chosen, rejected


def check_whole(asked, completions, scored, num_completions, paths):
    """Raise InputError for a prompt without `num_completions` completions, or a reward for each.

    asked, completions: prompts and completions (lists of dicts) of one shard; scored: its `Scored`; paths:
    {"completions": path}.
    """
    wanted = sorted((row["prompt_id"], sample) for row in asked for sample in range(num_completions))
    rewarded = [(prompt_id, sample) for prompt_id, found in scored.rewards.items() for sample in found]
    for what, keys in (
        (paths["completions"], [(row["prompt_id"], row["sample"]) for row in completions]),
        (f"rewards of {paths['completions']}", rewarded),
    ):
        if sorted(keys) != wanted:
            missing = Counter(wanted) - Counter(keys)
            first = "prompt_id {}, sample {}".format(*min(missing)) if missing else "none"
            raise InputError(
                f"{what}: the shard has {len(keys)} rows where {len(asked)} prompts with "
                f"{num_completions} completions each need {len(wanted)} (first missing: {first}); "
                "delete the file and let its rule make it again"
            )


def shard_pairs(paths, split, scored, args, report):
    """Return (pairs, ranked) of one shard: rows of tables.PREFERENCES, in prompt order, and tables.RANKED.

    paths: {"prompts", "completions": path}; split: str; scored: its `Scored`. `report` counts the outcome of
    each prompt.
    """
    asked = tables.read_rows(paths["prompts"], tables.PROMPTS)
    completions = tables.read_rows(paths["completions"], tables.COMPLETIONS)
    check_whole(asked, completions, scored, args.num_completions, paths)
    rows_of = {}
    for row in completions:
        rows_of.setdefault(row["prompt_id"], []).append(row)
    pairs, ranked = [], []
    for prompt in asked:
        prompt_id = prompt["prompt_id"]
        rows, scores, wins = rows_of[prompt_id], scored.rewards[prompt_id], scored.wins[prompt_id]
        found = candidates(rows, scores, args.length_penalty)
        outcome = pair(found, args.strategy, args.min_margin, args.truncated, args.seed, prompt_id)
        report.add_prompt(split, outcome, found, rows, scores)
        roles = {}
        if isinstance(outcome, tuple):
            chosen, rejected = outcome
            roles = {chosen.sample: "chosen", rejected.sample: "rejected"}
            ids = {row["sample"]: row["completion_ids"] for row in rows}
            pairs.append(
                {
                    **{name: prompt[name] for name in ("prompt_id", "messages", "prompt_ids")},
                    "split": split,
                    "chosen": chosen.text,
                    "rejected": rejected.text,
                    "chosen_reward": chosen.reward,
                    "rejected_reward": rejected.reward,
                    "chosen_win_probability": wins[chosen.sample],
                    "rejected_win_probability": wins[rejected.sample],
                    "chosen_sample": chosen.sample,
                    "rejected_sample": rejected.sample,
                    "chosen_ids": ids[chosen.sample],
                    "rejected_ids": ids[rejected.sample],
                }
            )
        for row in rows:
            sample = row["sample"]
            ranked.append(
                {
                    "prompt_id": prompt_id,
                    "split": split,
                    "sample": sample,
                    "length": len(row["completion_ids"]),
                    "finish_reason": row["finish_reason"],
                    "reward": scores[sample],
                    "win_probability": wins[sample],
                    "role": roles.get(sample),
                }
            )
    return (
        pa.Table.from_pylist(pairs, schema=tables.PREFERENCES),
        pa.Table.from_pylist(ranked, schema=tables.RANKED),
    )


def show(metrics):
    """Print the counts; raise InputError if no training pair is left."""
    for split, counts in metrics["splits"].items():
        dropped = ", ".join(f"{reason} {number}" for reason, number in counts["dropped"].items())
        print(f"{split}: {counts['kept']} pairs of {counts['prompts']} prompts; dropped: {dropped}")
    if not metrics["splits"]["train"]["kept"]:
        raise InputError(
            f"no training pair is left of {metrics['splits']['train']['prompts']} prompts: "
            f"{metrics['splits']['train']['dropped']}, {metrics['completions']['truncated']} of "
            f"{metrics['completions']['total']} completions truncated; change rank.truncated, "
            "rank.min_margin or generate.max_tokens"
        )


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument(
        "--samples",
        required=True,
        help="folder with prompts/SHARD.parquet, completions/SHARD.parquet, rewards/REWARD/SHARD.parquet",
    )
    parser.add_argument(
        "--shards",
        type=json.loads,
        required=True,
        help="JSON: how many shards of each split; others are not read",
    )
    parser.add_argument(
        "--weighting", type=json.loads, required=True, help="JSON: kind, weight and normalize by reward"
    )
    section.add(parser, "generate", "num_completions")
    section.add(parser, "rank")
    section.add(parser, "seed")
    parser.add_argument("--out", required=True, help="preference pairs (parquet)")
    parser.add_argument("--ranked", required=True, help="every completion as it was ranked (parquet)")
    parser.add_argument(
        "--metrics", required=True, help="kept and dropped by reason, rewards, lengths (json)"
    )
    args = parser.parse_args(argv)

    def path(kind, shard):
        return Path(args.samples, kind, f"{shard}.parquet")

    train = prompts.shards({"train": args.shards["train"]})
    rewards = {name: f"rewards/{name}" for name in args.weighting}
    scales = combine.scales(
        {name: [path(kind, shard) for shard in train] for name, kind in rewards.items()}, args.weighting
    )
    report = rank_metrics.Report(REASONS)
    with (
        tables.Writer(args.out, tables.PREFERENCES) as pairs,
        tables.Writer(args.ranked, tables.RANKED) as ranked,
    ):
        for shard in prompts.shards(args.shards):
            scored = combine.score_shard(
                {name: path(kind, shard) for name, kind in rewards.items()}, args.weighting, scales
            )
            paths = {kind: path(kind, shard) for kind in ("prompts", "completions")}
            made = shard_pairs(paths, shard.split("-")[0], scored, args, report)
            pairs.add(made[0])
            ranked.add(made[1])
        metrics = report.metrics()
        show(metrics)
    files.write_json(args.metrics, metrics)


if __name__ == "__main__":
    errors.run(main)

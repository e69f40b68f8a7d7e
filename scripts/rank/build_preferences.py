"""Turn scored completions into preference pairs.

For each prompt, completions with the same text count once, and the rest is ranked by reward: the weighted sum
of all rewards (prefline/rewards/combine.py), less --length-penalty for every token. A completion that a
reward is missing of (the engine gave it up, a judge did not score it) is left out. `chosen` is the best one
that may be chosen; `rejected` comes from those below it, by --strategy:

    max_min     the worst
    max_second  the next best
    max_random  any, at random
    random      two completions at random, of which the better is chosen

Equal rewards are ranked by a seeded hash, not by sample number, which would favour the first. Completions cut
off at the token limit are dropped, may only be rejected, or count like the others (--truncated). A prompt
yields no pair, and is counted under one reason, when it has

    too_few         fewer than two completions, or none that may be chosen
    identical_text  fewer than two texts
    truncated_best  no completion that may be chosen above another one
    margin          a pair whose rewards differ by --min-margin or less

    reads   all shards of prompts, completions and rewards; the split is in the shard's name, the name of the
            reward in the folder's
    writes  the columns of tables.PREFERENCES and, for every completion, of tables.RANKED: there the reward is
            without the penalty. Win probabilities are a pairwise model's if it is the only reward, else those
            that the rewards have as a Bradley-Terry model's

    python -m scripts.rank.build_preferences --prompts results/samples/sft/prompts/*.parquet \\
        --completions results/samples/sft/completions/*.parquet \\
        --rewards results/samples/sft/rewards/*/*.parquet \\
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
from prefline.data import tables
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
    """The `Candidate` of each row of completions (list of dicts) that has a reward.

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
    """One candidate of each text, in no order that means anything: a finished one before a truncated one."""
    by_text = {}

    def order(one):
        return one.truncated, seeds.derive(seed, "tie", prompt_id, one.sample)

    for candidate in sorted(found, key=order):
        by_text.setdefault(candidate.text, candidate)
    return list(by_text.values())


def pair(found, strategy, min_margin, truncated, seed, prompt_id):
    """(chosen, rejected) of a prompt's list of `Candidate`, or the reason (str of REASONS) why there is none.

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


def check_whole(prompts, completions, scored, num_completions, paths):
    """Raise InputError for a prompt without `num_completions` completions, or a reward for each.

    prompts, completions: lists of dicts of one shard; scored: its `Scored`; paths: {"completions": path}.
    """
    wanted = sorted((row["prompt_id"], sample) for row in prompts for sample in range(num_completions))
    rewarded = [(prompt_id, sample) for prompt_id, found in scored.rewards.items() for sample in found]
    for what, keys in (
        (paths["completions"], [(row["prompt_id"], row["sample"]) for row in completions]),
        (f"rewards of {paths['completions']}", rewarded),
    ):
        if sorted(keys) != wanted:
            missing = Counter(wanted) - Counter(keys)
            first = "prompt_id {}, sample {}".format(*min(missing)) if missing else "none"
            raise InputError(
                f"{what}: the shard has {len(keys)} rows where {len(prompts)} prompts with "
                f"{num_completions} completions each need {len(wanted)} (first missing: {first}); "
                "delete the file and let its rule make it again"
            )


def shard_pairs(paths, scored, args, report):
    """(pairs, ranked): rows of tables.PREFERENCES, prompts in order, and of tables.RANKED, of one shard.

    paths: {"prompts", "completions": path}; scored: its `Scored`. What becomes of each prompt is counted in
    `report`.
    """
    prompts = tables.read_rows(paths["prompts"], tables.PROMPTS)
    completions = tables.read_rows(paths["completions"], tables.COMPLETIONS)
    check_whole(prompts, completions, scored, args.num_completions, paths)
    split = combine.split_of(paths["prompts"])
    rows_of = {}
    for row in completions:
        rows_of.setdefault(row["prompt_id"], []).append(row)
    pairs, ranked = [], []
    for prompt in prompts:
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


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--prompts", nargs="+", required=True, help="prompt shards, SPLIT-NNNNN.parquet")
    parser.add_argument(
        "--completions", nargs="+", required=True, help="their completions, in the same order"
    )
    parser.add_argument(
        "--rewards", nargs="+", required=True, help="all their rewards, REWARD/SPLIT-NNNNN.parquet"
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

    shards = [Path(path).stem for path in args.prompts]
    expected = {f"{name}/{shard}" for name in args.weighting for shard in shards}
    if shards != [Path(path).stem for path in args.completions] or expected != {
        f"{Path(path).parent.name}/{Path(path).stem}" for path in args.rewards
    }:
        raise InputError(
            "--prompts, --completions and --rewards must name the same shards, and --rewards each of them "
            "once for every entry of --weighting"
        )
    scored = combine.score_shards(args.rewards, args.weighting)
    report = rank_metrics.Report(REASONS)
    pairs, ranked = [], []
    for prompts, completions in zip(args.prompts, args.completions, strict=True):
        paths = {"prompts": prompts, "completions": completions}
        made = shard_pairs(paths, scored.pop(Path(prompts).stem), args, report)
        pairs.append(made[0])
        ranked.append(made[1])
    metrics = report.metrics()
    for split, counts in metrics["splits"].items():
        dropped = ", ".join(f"{reason} {number}" for reason, number in counts["dropped"].items())
        print(f"{split}: {counts['kept']} pairs of {counts['prompts']} prompts; dropped: {dropped}")
    if not metrics["splits"]["train"]["kept"]:
        raise InputError(
            f"no training pair is left of {metrics['splits']['train']['prompts']} prompts: "
            f"{metrics['splits']['train']['dropped']}, {metrics['completions']['truncated']} of "
            f"{metrics['completions']['total']} completions truncated; look at rank.truncated, "
            "rank.min_margin and generate.max_tokens"
        )
    tables.write(args.out, pa.concat_tables(pairs), tables.PREFERENCES)
    tables.write(args.ranked, pa.concat_tables(ranked), tables.RANKED)
    files.write_json(args.metrics, metrics)


if __name__ == "__main__":
    errors.run(main)

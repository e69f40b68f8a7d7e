"""Turn scored completions into preference pairs.

For each prompt, completions with the same text count once, and the rest is ranked by reward, less
--length-penalty for every token. `chosen` is the best one that may be chosen; `rejected` comes from those
below it, by --strategy:

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

    reads   all shards of prompts, completions and rewards; the split is in the shard's name
    writes  the columns of tables.PREFERENCES; rewards as ranked, with the penalty taken off

    python -m scripts.build_preferences --prompts results/samples/sft/prompts/*.parquet \\
        --completions results/samples/sft/completions/*.parquet \\
        --rewards results/samples/sft/rewards/*.parquet --num-completions 5 --strategy max_min \\
        --length-penalty 0.0 --min-margin 0.0 --truncated drop --seed 1 \\
        --out preferences.parquet --metrics preferences.json
"""

import argparse
import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from scripts.common import errors, files, seeds, tables
from scripts.common.errors import InputError

STRATEGIES = ("max_min", "max_second", "max_random", "random")
TRUNCATED = ("drop", "keep_as_rejected", "keep")
REASONS = ("too_few", "identical_text", "truncated_best", "margin")


class Candidate(NamedTuple):
    """A completion of a prompt, as the ranking sees it."""

    sample: int
    text: str
    reward: float  # float32, less the length penalty
    truncated: bool


def candidates(rows, scores, length_penalty):
    """The `Candidate` of each row of completions (list of dicts) that is one; scores: {sample: reward}.

    A request that the engine gave up has a row, too, so that the shard is whole, but no answer.
    """
    return [
        Candidate(
            sample=row["sample"],
            text=row["completion"],
            reward=float(np.float32(scores[row["sample"]] - length_penalty * len(row["completion_ids"]))),
            truncated=row["finish_reason"] == "length",
        )
        for row in rows
        if row["finish_reason"] != "error"
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


def check_whole(prompts, completions, rewards, num_completions, paths):
    """Raise InputError for a prompt without `num_completions` rows in both tables, or a reward not finite.

    prompts, completions, rewards: lists of dicts of one shard; paths: {"completions", "rewards": path}.
    """
    wanted = sorted((row["prompt_id"], sample) for row in prompts for sample in range(num_completions))
    for name, rows in (("completions", completions), ("rewards", rewards)):
        keys = sorted((row["prompt_id"], row["sample"]) for row in rows)
        if keys != wanted:
            missing = Counter(wanted) - Counter(keys)
            first = "prompt_id {}, sample {}".format(*min(missing)) if missing else "none"
            raise InputError(
                f"{paths[name]}: the shard has {len(keys)} rows where {len(prompts)} prompts with "
                f"{num_completions} completions each need {len(wanted)} (first missing: {first}); "
                "delete the file and let its rule make it again"
            )
    for row in rewards:
        if row["reward"] is None or not math.isfinite(row["reward"]):
            raise InputError(
                f"{paths['rewards']}: prompt_id {row['prompt_id']}, sample {row['sample']} has the reward "
                f"{row['reward']}; score again in float32 (rank.dtype), or with another reward model"
            )


def split_of(path):
    """The split (str) of a shard's path: train of …/train-00000.parquet."""
    split = Path(path).stem.rsplit("-", 1)[0]
    if split not in ("train", "test"):
        raise InputError(f"{path}: a shard is called train-NNNNN.parquet or test-NNNNN.parquet")
    return split


class Report:
    """What is counted over all shards, for the metrics file."""

    def __init__(self):
        self.counts = {split: Counter() for split in ("train", "test")}
        self.truncated = self.duplicates = self.ties = 0
        self.rewards, self.lengths, self.gaps, self.margins = [], [], [], []

    def add_prompt(self, split, outcome, found, rows, scores):
        """outcome: what `pair` returned; found: its candidates; rows, scores: as `candidates` takes them."""
        self.counts[split]["prompts"] += 1
        self.counts[split]["kept" if isinstance(outcome, tuple) else outcome] += 1
        self.truncated += sum(candidate.truncated for candidate in found)
        reward_of = {candidate.text: candidate.reward for candidate in found}
        self.duplicates += len(found) - len(reward_of)
        self.ties += len(set(reward_of.values())) < len(reward_of)
        lengths = {row["sample"]: len(row["completion_ids"]) for row in rows}
        self.lengths += lengths.values()
        self.rewards += [scores[sample] for sample in lengths]
        if isinstance(outcome, tuple):
            chosen, rejected = outcome
            self.gaps.append((lengths[chosen.sample], lengths[rejected.sample]))
            self.margins.append(chosen.reward - rejected.reward)

    def metrics(self):
        """The metrics (dict): `splits` counts prompts, lengths are in tokens, null is undefined."""
        rewards, lengths = np.array(self.rewards, np.float64), np.array(self.lengths, np.float64)
        gaps = np.array(self.gaps, np.float64).reshape(-1, 2)
        prompts = sum(counts["prompts"] for counts in self.counts.values())
        varied = len(rewards) > 1 and rewards.std() > 0 and lengths.std() > 0
        return {
            "splits": {
                split: {
                    "prompts": counts["prompts"],
                    "kept": counts["kept"],
                    "dropped": {reason: counts[reason] for reason in REASONS},
                }
                for split, counts in self.counts.items()
            },
            "completions": {
                "total": len(rewards),
                "truncated": self.truncated,
                "duplicate_text": self.duplicates,
            },
            "reward": _distribution(rewards),
            "margin": _distribution(np.array(self.margins, np.float64)),
            "tie_rate": self.ties / prompts if prompts else None,
            "length_reward_correlation": float(np.corrcoef(lengths, rewards)[0, 1]) if varied else None,
            "chosen_length": _mean(gaps[:, 0]),
            "rejected_length": _mean(gaps[:, 1]),
            "length_gap": _mean(gaps[:, 0] - gaps[:, 1]),
        }


def _mean(values):
    return float(values.mean()) if len(values) else None


def _distribution(values):
    if not len(values):
        return None
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "q25": float(low),
        "median": float(middle),
        "q75": float(high),
        "max": float(values.max()),
    }


def shard_pairs(paths, args, report):
    """The pairs (pyarrow Table of tables.PREFERENCES) of one shard, prompts in order; counted in `report`."""
    prompts = tables.read_rows(paths["prompts"], tables.PROMPTS)
    completions = tables.read_rows(paths["completions"], tables.COMPLETIONS)
    rewards = tables.read_rows(paths["rewards"], tables.REWARDS)
    check_whole(prompts, completions, rewards, args.num_completions, paths)
    split = split_of(paths["prompts"])
    rows_of, scores_of = {}, {}
    for row in completions:
        rows_of.setdefault(row["prompt_id"], []).append(row)
    for row in rewards:
        scores_of.setdefault(row["prompt_id"], {})[row["sample"]] = row["reward"]
    pairs = []
    for prompt in prompts:
        prompt_id = prompt["prompt_id"]
        rows, scores = rows_of[prompt_id], scores_of[prompt_id]
        found = candidates(rows, scores, args.length_penalty)
        outcome = pair(found, args.strategy, args.min_margin, args.truncated, args.seed, prompt_id)
        report.add_prompt(split, outcome, found, rows, scores)
        if isinstance(outcome, str):
            continue
        chosen, rejected = outcome
        ids = {row["sample"]: row["completion_ids"] for row in rows}
        pairs.append(
            {
                **prompt,
                "split": split,
                "chosen": chosen.text,
                "rejected": rejected.text,
                "chosen_reward": chosen.reward,
                "rejected_reward": rejected.reward,
                "chosen_sample": chosen.sample,
                "rejected_sample": rejected.sample,
                "chosen_ids": ids[chosen.sample],
                "rejected_ids": ids[rejected.sample],
            }
        )
    return pa.Table.from_pylist(pairs, schema=tables.PREFERENCES)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", nargs="+", required=True, help="prompt shards, SPLIT-NNNNN.parquet")
    parser.add_argument(
        "--completions", nargs="+", required=True, help="their completions, in the same order"
    )
    parser.add_argument("--rewards", nargs="+", required=True, help="their rewards, in the same order")
    parser.add_argument("--num-completions", type=int, required=True, help="completions that each prompt has")
    parser.add_argument(
        "--strategy", choices=STRATEGIES, required=True, help="which two completions make a pair"
    )
    parser.add_argument("--length-penalty", type=float, required=True, help="reward taken off per token")
    parser.add_argument(
        "--min-margin", type=float, required=True, help="drop a pair at or below this difference"
    )
    parser.add_argument(
        "--truncated", choices=TRUNCATED, required=True, help="what cut-off completions are for"
    )
    parser.add_argument("--seed", type=int, required=True, help="of ties and random choices")
    parser.add_argument("--out", required=True, help="preference pairs (parquet)")
    parser.add_argument(
        "--metrics", required=True, help="kept and dropped by reason, rewards, lengths (json)"
    )
    args = parser.parse_args(argv)

    names = {
        tuple(Path(path).name for path in paths) for paths in (args.prompts, args.completions, args.rewards)
    }
    if len(names) > 1:
        raise InputError("--prompts, --completions and --rewards must name the same shards in the same order")
    report = Report()
    pairs = []
    for shard in zip(args.prompts, args.completions, args.rewards, strict=True):
        paths = dict(zip(("prompts", "completions", "rewards"), shard, strict=True))
        pairs.append(shard_pairs(paths, args, report))
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
    files.write_json(args.metrics, metrics)


if __name__ == "__main__":
    errors.run(main)

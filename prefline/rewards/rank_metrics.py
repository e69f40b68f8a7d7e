"""Metrics of a policy's rewards and pairs: is there anything to learn, and is it length alone?"""

import array
from collections import Counter

import numpy as np


class Report:
    """Counts over all shards. reasons: the names (str) of reasons why a prompt yields no pair."""

    def __init__(self, reasons):
        self.reasons = reasons
        self.counts = {split: Counter() for split in ("train", "test")}
        self.truncated = self.duplicates = self.unscored = self.ties = 0
        self.rewards, self.lengths, self.margins = (array.array("d") for _ in range(3))
        self.gaps = array.array("d")  # lengths of chosen and rejected in turn

    def add_prompt(self, split, outcome, found, rows, scores):
        """Count a prompt. outcome: (chosen, rejected) or a reason; found: the prompt's candidates.

        rows: its completions (list of dicts); scores: {sample: reward or None}, before the length penalty.
        """
        self.counts[split]["prompts"] += 1
        self.counts[split]["kept" if isinstance(outcome, tuple) else outcome] += 1
        self.truncated += sum(candidate.truncated for candidate in found)
        reward_of = {candidate.text: candidate.reward for candidate in found}
        self.duplicates += len(found) - len(reward_of)
        self.ties += len(set(reward_of.values())) < len(reward_of)
        scored = [row for row in rows if scores[row["sample"]] is not None]
        lengths = {row["sample"]: len(row["completion_ids"]) for row in scored}
        self.unscored += len(rows) - len(lengths)
        self.lengths.extend(lengths.values())
        self.rewards.extend(scores[sample] for sample in lengths)
        if isinstance(outcome, tuple):
            chosen, rejected = outcome
            self.gaps.extend((lengths[chosen.sample], lengths[rejected.sample]))
            self.margins.append(chosen.reward - rejected.reward)

    def metrics(self):
        """Return the metrics (dict): `splits` counts prompts, lengths are in tokens, null is undefined."""
        rewards, lengths = np.array(self.rewards, np.float64), np.array(self.lengths, np.float64)
        gaps = np.array(self.gaps, np.float64).reshape(-1, 2)
        prompts = sum(counts["prompts"] for counts in self.counts.values())
        varied = len(rewards) > 1 and rewards.std() > 0 and lengths.std() > 0
        return {
            "splits": {
                split: {
                    "prompts": counts["prompts"],
                    "kept": counts["kept"],
                    "dropped": {reason: counts[reason] for reason in self.reasons},
                }
                for split, counts in self.counts.items()
            },
            "completions": {
                "total": len(rewards) + self.unscored,
                "unscored": self.unscored,
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

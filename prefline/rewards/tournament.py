"""Choose which completions of a prompt to compare, and compute rewards from the comparisons.

A tournament is full, or sampled on a ring. The texts form a circle, in an order that depends only on the
seed, the prompt and the texts, and each is compared with those a few steps away. So all have equally many
comparisons, all are connected, and the order of rows and samples does not matter.
"""

import itertools
import math

from prefline import seeds
from prefline.rewards.pairwise import Comparison


def rewards(dialogues, prompt_ids, samples, opponents, seed, compare):
    """Return [reward, parts] of each of `dialogues` (None for None) by a tournament within each prompt.

    samples: list of int, the numbers of the dialogues among those to their prompt, whose order `parts` have;
    opponents, seed: see `comparisons`; compare(list of Comparison): the probabilities (list of float) that a
    beats b; the rest as in `score`.
    """
    rows_of = {}
    for row in sorted(range(len(dialogues)), key=lambda row: samples[row]):
        rows_of.setdefault(prompt_ids[row], []).append(row)
    held = {prompt_id: {} for prompt_id in rows_of}
    for prompt_id, rows in rows_of.items():
        first = {}
        for row in rows:
            if dialogues[row] is not None:
                first.setdefault(dialogues[row].completion, row)
        for a, b in comparisons(first, opponents, seed, prompt_id):
            dialogue = dialogues[first[a]]
            where = f"{dialogue.where}, beside sample {samples[first[b]]}"
            held[prompt_id][a, b] = Comparison(dialogue.messages, a, b, where)
    chances = iter(compare([comparison for meetings in held.values() for comparison in meetings.values()]))
    scored = [None] * len(dialogues)
    for prompt_id, rows in rows_of.items():
        probabilities = {pair: next(chances) for pair in held[prompt_id]}
        texts = [dialogues[row] and dialogues[row].completion for row in rows]
        for row, pair in zip(rows, score(texts, probabilities), strict=True):
            scored[row] = pair
    return scored


def comparisons(texts, opponents, seed, prompt_id):
    """Return the comparisons to hold: a sorted list of (a, b), two of `texts` (different str) with a < b.

    opponents: int, how many others each text meets; 0: all. A ring needs two at least, and one more where
    `opponents` and the number of texts are both odd.
    """
    size = len(texts)
    opponents = opponents and max(2, opponents)
    if opponents == 0 or opponents >= size - 1:
        return list(itertools.combinations(sorted(texts), 2))
    ring = sorted(texts, key=lambda text: (seeds.derive(seed, "opponents", prompt_id, text), text))
    # A step leads to two others, except to one across a ring of even size.
    steps = [*range(1, opponents // 2 + 1)]
    if opponents % 2:
        steps.append(opponents // 2 + 1 if size % 2 else size // 2)
    met = {tuple(sorted((ring[place], ring[place - step]))) for step in steps for place in range(size)}
    return sorted(met)


def score(texts, probabilities):
    """Return [reward, parts] of each of `texts` (list of str); None for a sample without an answer.

    probabilities: {(a, b): the probability (float) that a beats b}, a < b, as `comparisons` gives them.
    parts: list of float, the probability of beating each of `texts`: 1/2 for itself and its equals, None
    where they did not meet. reward: float, the mean over all answers; what it did not meet counts as the mean
    of what it met. With itself among them that is the estimate of P(y > policy | x) in SPPO (Wu et al. 2024,
    arXiv 2405.00675), and the rewards of a full tournament have the mean 1/2.
    """
    return [
        None
        if text is None
        else _scored(text, [_beats(text, other, probabilities) for other in texts], texts)
        for text in texts
    ]


def _beats(text, other, probabilities):
    """Return the probability that `text` beats `other`, or None."""
    if text == other:
        return 0.5
    if other is None:
        return None
    if text < other:
        return probabilities.get((text, other))
    reverse = probabilities.get((other, text))
    return None if reverse is None else 1 - reverse


def _scored(text, parts, texts):
    met = [part for part, other in zip(parts, texts, strict=True) if other != text and part is not None]
    equal = texts.count(text)
    # fsum: the same reward in whatever order the samples come.
    mean = math.fsum(met) / len(met) if met else 0.5
    answers = len(texts) - texts.count(None)
    return [(equal * 0.5 + (answers - equal) * mean) / answers, parts]

"""Read which of a prompt's answers is better, from the usual forms of preference data."""

import math
import re

from prefline.data import messages
from prefline.data.counts import Odd

# Keys of the answer and of its rating in an object with both.
ANSWER_KEYS = ("response", "text", "content", "generation", "completion", "output", "answer")
RATING_KEYS = ("overall_score", "rating", "score", "fine-grained_score", "reward")
# Words for preferences between two answers, with AlpacaEval's numbers.
TIE = 1.5
WORDS = {"a": 1, "b": 2, "first": 1, "second": 2, "left": 1, "right": 2}
WORDS |= dict.fromkeys(("tie", "draw", "equal", "same", "both", "neither", "bothbad", "bothgood"), TIE)
LABELS = {True: ("true", "1", "1.0", "yes", "good"), False: ("false", "0", "0.0", "no", "bad")}


def chosen(fields):
    """Return {"chosen", "rejected"} of a row (dict), with rewards if it has ratings; {} if it has both.

    Raises Odd for a row without a better answer.
    """
    if "completions" in fields:
        return _best_and_worst(fields["completions"], fields.get("ratings"))
    if "output_1" in fields:
        first = _first_is_better(fields)
        sides = ("chosen", "rejected") if first else ("rejected", "chosen")
        return dict(zip(sides, (fields["output_1"], fields.get("output_2")), strict=True))
    return {}


def _first_is_better(fields):
    if "preferred_index" in fields:
        index = number(fields["preferred_index"])
        if index not in (0, 1):
            raise Odd("no_preference", f"the better answer is 0 or 1, not {fields['preferred_index']!r:.40}")
        return index == 0
    said = fields.get("preference")
    value = preference(said)
    if isinstance(said, bool) or value is None or not (value == 0 or 1 <= value <= 2):
        raise Odd("no_preference", f"the preference is 1 or 2, a or b, or tie, not {said!r:.40}")
    if value in (0, TIE):
        raise Odd("tie", "neither answer is better")
    return value < TIE


def preference(said):
    """Return a preference as a number: 1 for the first answer, 2 for the second; None if it is unknown.

    said: a number, or a word such as "model_a" or "tie (both bad)".
    """
    if not isinstance(said, str):
        return number(said)
    words = re.sub(r"[^a-z0-9.]+", " ", said.lower()).split()
    known = [word for word in ("".join(words), *words[:1], *words[-1:]) if word in WORDS]
    return WORDS[known[0]] if known else number(words[-1]) if words else None


def _best_and_worst(completions, ratings):
    """Return {"chosen", "rejected", their rewards}: the answers with the highest and the lowest rating."""
    if not isinstance(completions, list):
        raise Odd("no_completions", f"a list of answers is needed, not {completions!r:.60}")
    if ratings is None and all(isinstance(one, dict) for one in completions):
        ratings = [
            next((one[key] for key in RATING_KEYS if one.get(key) is not None), None) for one in completions
        ]
    if not isinstance(ratings, list) or len(ratings) != len(completions):
        raise Odd("no_ratings", f"a list of {len(completions)} ratings is needed, not {ratings!r:.60}")
    texts = [answer(one) for one in completions]
    rated = [(number(rating), text) for rating, text in zip(ratings, texts, strict=True)]
    rated = [(rating, text) for rating, text in rated if rating is not None and text is not None]
    if len(rated) < 2:
        raise Odd("no_ratings", f"two rated answers are needed, not {len(rated)}")
    best, worst = (choose(rated, key=lambda one: one[0]) for choose in (max, min))
    if best[0] == worst[0]:
        raise Odd("tie", "all answers have the same rating")
    return {
        "chosen": best[1],
        "rejected": worst[1],
        "chosen_reward": best[0],
        "rejected_reward": worst[0],
    }


def answer(one):
    """Return the answer of an object with an answer and its rating; `one` itself if it is no such object."""
    if isinstance(one, dict) and not any(key in one for key in messages.ROLE_KEYS):
        return next((one[key] for key in ANSWER_KEYS if one.get(key) is not None), None)
    return one


def label(value):
    """Return whether a label marks a completion as good; raise Odd for an unknown label."""
    word = value.strip().lower() if isinstance(value, str) else value
    for good in (True, False):
        if word in LABELS[good] if isinstance(word, str) else number(word) == good:
            return good
    raise Odd("no_label", f"a label is true or false, not {value!r:.40}")


def number(value):
    """Return `value` as a finite float, None if it is none."""
    if isinstance(value, bool):
        return float(value)
    try:
        made = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return made if math.isfinite(made) else None

"""Scorers of answers: what turns a dialogue into a number.

A scorer is an object with `batches(dialogues)`, which yields (numbers, scores) batch by batch until every
dialogue is scored: numbers, list of int, are those of the dialogues in the list, scores a float32 array
[len(numbers)] of finite values. No score depends on what is scored beside it. A new kind of scorer is a
module here and a line in `load`.
"""

from typing import NamedTuple

# The Python packages that shape the scores.
PACKAGES = ("jinja2", "tokenizers", "torch", "transformers")


class Dialogue(NamedTuple):
    """An answer to score in its context."""

    messages: list  # of {"role", "content"}, up to where the answer begins
    completion: str
    where: str  # names the answer in messages to the user


def load(model, batch_tokens, dtype):
    """The scorer of the model directory `model`, on the accelerator if there is one.

    batch_tokens: int, most tokens in one forward pass, padding included. dtype: "float32" or "bfloat16", of
    the model's body; scores are float32 in both.
    """
    from scripts.common.rewards.sequence_classifier import SequenceClassifier

    return SequenceClassifier(model, batch_tokens, dtype)


def score(scorer, dialogues):
    """All scores, a float32 array [len(dialogues)] in their order."""
    import numpy as np

    scores = np.empty(len(dialogues), dtype=np.float32)
    for numbers, batch in scorer.batches(dialogues):
        scores[numbers] = batch
    return scores

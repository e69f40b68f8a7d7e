"""Scorers of answers: what turns a dialogue into a number.

A scorer is an object with `score(dialogues)` -> float32 array [len(dialogues)], in the order given; no score
depends on what is scored beside it. A new kind of scorer is a module here and a line in `load`.
"""

from typing import NamedTuple


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

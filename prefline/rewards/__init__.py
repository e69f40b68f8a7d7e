"""Rewards turn an answer into a number.

A scorer is an object with `batches(dialogues)`, which yields (numbers, Scores) batch by batch until every
dialogue is scored; numbers, list of int, are those of the dialogues in the list. No score depends on what is
scored beside it, up to the rounding of floats. A new kind of scoring model is a module here, a line in
`forms.form` and one in `scorers.load`.
"""

from typing import NamedTuple

import numpy as np

# The Python packages that shape the scores.
PACKAGES = ("jinja2", "tokenizers", "torch", "transformers")


class Dialogue(NamedTuple):
    """An answer to score in its context."""

    messages: list  # of {"role", "content"}, up to where the answer begins
    completion: str
    where: str  # names the answer in messages to the user
    reference: str | None = None  # the right answer, where the data has one


class NoReward(Exception):
    """A function's failure at an answer. reason: str; reward: float of such answers, or None for none."""

    def __init__(self, reason, reward=None):
        super().__init__(reason)
        self.reason, self.reward = reason, reward


class Scores(NamedTuple):
    """The scores of a batch of n dialogues, all of them finite.

    reward: float32 array [n]; parts: float32 array [n, heads] of what each reward is made of, or None.
    """

    reward: np.ndarray
    parts: np.ndarray | None = None

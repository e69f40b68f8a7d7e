"""What turns an answer into a number.

A scorer is an object with `batches(dialogues)`, which yields (numbers, Scores) batch by batch until every
dialogue is scored; numbers, list of int, are those of the dialogues in the list. No score depends on what is
scored beside it, up to the rounding of floats. A new kind of scoring model is a module here, a line in `form`
and one in `scorers.load`.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefline.errors import InputError

# The Python packages that shape the scores.
PACKAGES = ("jinja2", "tokenizers", "torch", "transformers")


class Dialogue(NamedTuple):
    """An answer to score in its context."""

    messages: list  # of {"role", "content"}, up to where the answer begins
    completion: str
    where: str  # names the answer in messages to the user
    reference: str | None = None  # the right answer, where the data has one


class Scores(NamedTuple):
    """The scores of a batch of n dialogues, all of them finite.

    reward: float32 array [n]; parts: float32 array [n, heads] of what each reward is made of, or None.
    """

    reward: np.ndarray
    parts: np.ndarray | None = None


def form(model, head_weights=None):
    """How the model directory `model` scores dialogues: "own code", "gated" or "sequence classifier".

    Reads its config only. Raises InputError for one that gives no single score.
    """
    from transformers import AutoConfig

    # `fetch_model` takes code only where the config allows it.
    own_code = any(Path(model).glob("*.py"))
    config = AutoConfig.from_pretrained(model, trust_remote_code=own_code)
    architecture = (config.architectures or ["model without an architecture"])[0]
    if own_code:
        return "own code"
    if architecture.endswith("ForRewardModelWithGating"):
        if head_weights is not None:
            raise InputError(f"{model}: weighs its heads by itself; set head_weights: null")
        return "gated"
    if not architecture.endswith("ForSequenceClassification"):
        raise InputError(
            f"{model}: is a {architecture}, which gives no score; take a sequence classifier, or a model "
            "whose own code the config allows (models.NAME.remote_code)"
        )
    if head_weights is None and config.num_labels != 1:
        raise InputError(
            f"{model}: a reward model with {config.num_labels} labels where one is needed; if they are "
            "rewards to add up, give a weight for each in head_weights"
        )
    if head_weights is not None and len(head_weights) != config.num_labels:
        raise InputError(
            f"{model}: has {config.num_labels} outputs, but head_weights has {len(head_weights)} numbers"
        )
    return "sequence classifier"

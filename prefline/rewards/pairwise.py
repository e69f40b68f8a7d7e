"""Models that read two answers side by side and say how likely one is to beat the other.

Such a model leans to a place: each comparison is made in both orders and averaged, so that P(a beats b) and
P(b beats a) add up to 1. No probability depends on what is compared beside it, up to the rounding of floats.
"""

import math
from pathlib import Path
from typing import NamedTuple

from prefline import files
from prefline.errors import InputError
from prefline.rewards import loading


class Comparison(NamedTuple):
    """Two answers to compare in their context."""

    messages: list  # of {"role", "content"}, up to where the answers begin
    a: str
    b: str
    where: str  # names the two in messages to the user


class Comparer:
    """The base class of comparing models.

    A subclass has three members. `ids(comparison, first, second)` gives the token ids (int64 array) with the
    answers in this order. `in_batches` is the `batches.Batches` to run them in. `_forward(rows)` gives the
    probabilities (float tensor [rows]) that the first wins.
    """

    def batches(self, comparisons):
        """Yield (numbers, probabilities that a beats b) of the list of `Comparison`, batch by batch.

        numbers: list of int, probabilities: list of float. Raises InputError, naming the comparison, for one
        too long for the model or without a finite probability.
        """
        rows = [
            self.ids(comparison, *order)
            for comparison in comparisons
            for order in ((comparison.a, comparison.b), (comparison.b, comparison.a))
        ]
        one_order = {}
        for numbers, chances in self.in_batches.run(rows, self._forward):
            done = {}
            for row, first_wins in zip(numbers, chances.tolist(), strict=True):
                comparison, swapped = divmod(row, 2)
                if not math.isfinite(first_wins):
                    raise InputError(
                        f"{comparisons[comparison].where}: the model's probability is {first_wins}; compare "
                        "in float32 (its dtype in the config), or take another model"
                    )
                a_wins = 1 - first_wins if swapped else first_wins
                if comparison in one_order:
                    done[comparison] = (a_wins + one_order.pop(comparison)) / 2
                else:
                    one_order[comparison] = a_wins
            yield list(done), list(done.values())


def load(model, batch_tokens, dtype):
    """Return the `Comparer` of the model directory `model`, on the accelerator if there is one.

    batch_tokens: int, most tokens in one forward pass, padding included. dtype: "float32" or "bfloat16", of
    the model's body; heads and probabilities are float32 in both. Raises InputError for a model that compares
    no answers.
    """
    if form(model) == "PairRM":
        from prefline.rewards.pairrm import PairRM as Comparer
    else:
        from prefline.rewards.pair_preference import PairPreference as Comparer
    return Comparer(model, batch_tokens, dtype)


def form(model):
    """Return the kind of the comparing model in the directory `model`: "PairRM" or "language model".

    Reads its config and tokenizer only. Raises InputError for one that compares none.
    """
    architectures = files.read_json(Path(model) / "config.json").get("architectures")
    architecture = (architectures or ["model without an architecture"])[0]
    if architecture == "DebertaV2PairRM":
        return "PairRM"
    if not architecture.endswith(("ForCausalLM", "LMHeadModel")):
        raise InputError(
            f"{model}: is a {architecture}, which compares no answers; take a language model that answers A "
            "or B, or PairRM"
        )
    letter_ids(loading.tokenizer(model), model)
    return "language model"


def check(model):
    """Raise InputError unless the model directory `model` can compare, and is whole. Reads no weights."""
    if form(model) == "PairRM":
        from prefline.rewards import pairrm

        pairrm.check(model)
        return
    heads = loading.heads(model)
    if heads:
        raise InputError(
            f"{model}: its head {heads[0]} gives one score of one answer; name it in a reward of the "
            "kind classifier"
        )
    loading.load("AutoModelForCausalLM", model, shapes_only=True)


def letter_ids(tokenizer, model):
    """Return the ids (list of two int) of A and B; raise InputError if one of them is not a single token."""
    ids = [tokenizer.encode(letter, add_special_tokens=False) for letter in "AB"]
    if any(len(of_letter) != 1 for of_letter in ids):
        raise InputError(f"{model}: its tokenizer has no single tokens for A and B, between which it chooses")
    return [of_letter[0] for of_letter in ids]

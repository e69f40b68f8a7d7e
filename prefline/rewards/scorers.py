"""Loading a model that scores: apart from the package, whose other users need no torch."""

import numpy as np

from prefline.rewards.forms import form


def load(model, batch_tokens, dtype, head_weights=None):
    """Return the scorer of the model directory `model`, on the accelerator if there is one.

    batch_tokens: int, most tokens in one forward pass, padding included. dtype: "float32" or "bfloat16", of
    the model's body; scores are float32 in both. head_weights: list of float, for a model with several heads
    and no opinion of its own on how they add up. Raises InputError for a model that gives no scores.
    """
    found = form(model, head_weights)
    if found == "own code":
        from prefline.rewards.own_code import OwnCode as Scorer
    elif found == "encoder":
        from prefline.rewards.encoder import Encoder as Scorer
    elif found == "gated":
        from prefline.rewards.gated import Gated as Scorer
    else:
        from prefline.rewards.sequence_classifier import SequenceClassifier as Scorer
    return Scorer(model, batch_tokens, dtype, head_weights)


def score(scorer, dialogues):
    """Return the rewards, a float32 array [len(dialogues)] in their order."""
    rewards = np.empty(len(dialogues), dtype=np.float32)
    for numbers, scores in scorer.batches(dialogues):
        rewards[numbers] = scores.reward
    return rewards

"""Rewards by a Python function that the config names, FILE.py:NAME."""

import math

from prefline.errors import InputError
from prefline.rewards import NoReward


def reward(function, arguments, dialogue, failures):
    """Return the function's reward (float) of a `rewards.Dialogue`; None where it has none.

    failures: collections.Counter of the reasons of NoReward, to count in. Raises InputError for a non-number.
    """
    try:
        value = function(dialogue.messages, dialogue.completion, dialogue.reference, **arguments)
        number = float(value)
    except NoReward as error:
        failures[error.reason] += 1
        return error.reward
    except Exception as error:
        raise InputError(f"{dialogue.where}: the reward function: {error}") from error
    if not math.isfinite(number):
        raise InputError(f"{dialogue.where}: the reward function gives {value!r}, which is no finite number")
    return number

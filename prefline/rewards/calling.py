"""Rewards by a Python function that the config names, FILE.py:NAME."""

import math

from prefline.errors import InputError


def reward(function, arguments, dialogue):
    """The function's reward (float) of a `rewards.Dialogue`; InputError, naming it, if that is none."""
    try:
        value = function(dialogue.messages, dialogue.completion, dialogue.reference, **arguments)
        number = float(value)
    except Exception as error:
        raise InputError(f"{dialogue.where}: the reward function: {error}") from error
    if not math.isfinite(number):
        raise InputError(f"{dialogue.where}: the reward function gives {value!r}, which is no finite number")
    return number

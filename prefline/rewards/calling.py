"""Rewards by a Python function that the config names, FILE.py:NAME."""

import importlib.util
import math
from pathlib import Path

from prefline.errors import InputError


def load(name):
    """The function that `name`, FILE.py:NAME, names; InputError if there is none."""
    path, function = name.rsplit(":", 1)
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; a reward function is FILE.py:NAME")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, function, None)
    if not callable(found):
        raise InputError(f"{path}: has no function {function!r}")
    return found


def reward(function, arguments, dialogue):
    """The function's reward (float) of a `rewards.Dialogue`; InputError, naming it, if that is none."""
    try:
        value = function(dialogue.messages, dialogue.completion, dialogue.reference, **arguments)
        number = float(value)
    except Exception as error:
        raise InputError(
            f"{dialogue.where}: the reward function raises {type(error).__name__}: {error}"
        ) from error
    if not math.isfinite(number):
        raise InputError(f"{dialogue.where}: the reward function gives {value!r}, which is no finite number")
    return number

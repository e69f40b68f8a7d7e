"""Losses of the user's own, named in the config as FILE.py:NAME, in the form of those in loss_functions.py.

The workflow reads what they take from their text. A training tries each on a few made-up pairs first, and so
learns what it reads of a batch: nothing needs to be declared.
"""

import functools
from pathlib import Path
from typing import NamedTuple

from prefline.config import functions
from prefline.errors import InputError
from prefline.training.loss_functions import Batch

FIRST = ("batch",)
TOKENS = [float(number) for number in range(2, 10)]


class Trial(NamedTuple):
    """The fields of a batch that a loss reads."""

    fields: set  # of str, names of the fields
    whole_batch: bool  # whether a pair's loss depends on the pairs beside it


def is_one(name):
    """Return whether a loss's name is FILE.py:NAME."""
    return ".py:" in name


def hyperparameters(name):
    """Return the names (list of str) that a loss takes besides the batch, and whether it takes any other."""
    taken, any_name = functions.parameters(name, FIRST)
    return list(taken), any_name


def call(name, batch, values):
    """Return the loss of each pair: (N,). values: dict, of which it is given what it takes.

    Raises InputError with file and line for what it raises, and if it returns anything else.
    """
    import torch

    function, taken, any_name = _loaded(name, Path.cwd())
    loss = function(batch, **{key: value for key, value in values.items() if any_name or key in taken})
    if not isinstance(loss, torch.Tensor) or loss.shape != batch.chosen_logps.shape:
        shape = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else repr(loss)
        raise InputError(f"{name} gives {shape} for {len(batch.chosen_logps)} pairs; return one for each")
    return loss


@functools.cache
def _loaded(name, _folder):
    return functions.load(name), *hyperparameters(name)


def trial(name, values):
    """Return the Trial of a loss; values: dict, as `call` takes it."""
    import torch

    fields = set()

    class Watched(Batch):
        def __getattribute__(self, field):
            fields.add(field)
            return super().__getattribute__(field)

    Watched.__name__ = Batch.__name__  # in messages

    def loss_of(rows):
        columns = {field: column[rows] for field, column in made.items()}
        columns |= {field: columns[field].requires_grad_() for field in ("chosen_logps", "rejected_logps")}
        return call(name, Watched(**columns), values)

    generator = torch.Generator().manual_seed(0)
    tokens = torch.tensor(TOKENS)
    made = {}
    for field in Batch.__dataclass_fields__:
        drawn = torch.rand(len(tokens), generator=generator)
        made[field] = -3 * tokens * drawn if field.endswith("logps") else drawn
    made |= {"chosen_tokens": tokens, "rejected_tokens": tokens.flip(0)}
    made |= {"mean_chosen_tokens": torch.full_like(tokens, tokens.mean())}
    together = loss_of(slice(None))
    if not together.requires_grad:
        raise InputError(f"{name} depends on neither chosen_logps nor rejected_logps: nothing would train")
    alone = torch.cat([loss_of(slice(row, row + 1)) for row in range(len(tokens))])
    return Trial(fields, not torch.allclose(together, alone))

"""Compute the losses of the config's loss_type: one of loss_functions.py, the user's, or a sum of several.

`values` is a dict with the hyperparameters of a loss_type, by their names in the config.
"""

import difflib

from prefline.config import functions
from prefline.errors import InputError
from prefline.training import own_losses
from prefline.training.loss_functions import COLUMNS, HYPERPARAMETERS, LOSSES, SHARED, WHOLE_BATCH


def names(loss_type):
    """Return the losses (list of str) that a loss_type, one name or a list of names, adds up."""
    return [loss_type] if isinstance(loss_type, str) else list(loss_type)


def own_files(loss_type):
    """Return the files (list of str) of a loss_type's losses that are the user's own."""
    return sorted({functions.file_of(name) for name in names(loss_type) if own_losses.is_one(name)})


def columns(loss_type, values=None):
    """Return the columns (list of str) of the pairs that a loss_type needs; values: as in `total`."""
    known = dict.fromkeys(column for columns in COLUMNS.values() for column in columns)
    needed = {column for name in names(loss_type) for column in COLUMNS.get(name, ())}
    for name in filter(own_losses.is_one, names(loss_type)):
        needed |= own_losses.trial(name, _own_values(values)).fields
    return [column for column in known if column in needed]


def sorting(loss_type, values):
    """Return the losses (list of str) of a loss_type that compare the pairs of a batch with each other."""
    own = _own_values(values)
    return [
        name
        for name in names(loss_type)
        if name in WHOLE_BATCH or (own_losses.is_one(name) and own_losses.trial(name, own).whole_batch)
    ]


def hyperparameters(loss_type):
    """Return the names (set of str) of the hyperparameters of a loss_type, one name or a list of names."""
    taken = {key for name in names(loss_type) for key in _keys(name)}
    return taken if isinstance(loss_type, str) else taken | {"loss_weights"}


def _keys(name):
    if own_losses.is_one(name):
        _, any_name = own_losses.hyperparameters(name)
        return {"loss_arguments"} | (SHARED if any_name else _named(name))
    return HYPERPARAMETERS[name]


def _named(name):
    """Return the shared hyperparameters (set of str) that a user's loss takes by name."""
    return SHARED.intersection(own_losses.hyperparameters(name)[0])


def _own_values(values):
    """Return the part of `values`, the hyperparameters of a loss_type, that users' losses may take."""
    return {key: values[key] for key in SHARED & values.keys()} | (values.get("loss_arguments") or {})


def check_names(loss_type):
    """Raise InputError for the first name in loss_type that is not a loss."""
    for name in names(loss_type):
        if own_losses.is_one(name):
            own_losses.hyperparameters(name)
        elif name not in LOSSES:
            near = difflib.get_close_matches(name, LOSSES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(LOSSES)}, or FILE.py:NAME"
            raise InputError(f"there is no loss {name!r:.100}; {hint}")


def check(loss_type, values):
    """Raise InputError unless `values` (dict), all hyperparameters of loss_type, suit it."""
    if "exo_pair" in names(loss_type) and values["label_smoothing"] == 0:
        raise InputError("exo_pair is infinite if label_smoothing is 0; set it, as the paper does, to 1e-3")
    own = [name for name in names(loss_type) if own_losses.is_one(name)]
    if own:
        functions.check(own, own_losses.FIRST, "loss_arguments", values["loss_arguments"] or {}, SHARED)
    weights = None if isinstance(loss_type, str) else values["loss_weights"]
    if weights is not None and len(weights) != len(loss_type):
        raise InputError(
            f"loss_weights has {len(weights)} numbers for {len(loss_type)} losses ({', '.join(loss_type)}); "
            "give one for each, or null for 1"
        )


def total(batch, loss_type, values):
    """Return the loss of each pair: (N,) float32, of one loss or the weighted sum of several.

    values: dict, the hyperparameters of loss_type; loss_weights None counts each loss once, as in TRL.
    """
    losses = names(loss_type)
    weights = (None if isinstance(loss_type, str) else values["loss_weights"]) or [1.0] * len(losses)
    parts = []
    for name, weight in zip(losses, weights, strict=True):
        if own_losses.is_one(name):
            loss = own_losses.call(name, batch, _own_values(values))
        else:
            own = {key: values[key] for key in HYPERPARAMETERS[name] if key in SHARED}
            loss = LOSSES[name](batch, **own)
        parts.append(weight * loss)
    return sum(parts)


def implied_rewards(batch, loss_type, values):
    """Return the policy's implied rewards: (chosen, rejected), each (N,) float32, for the metrics rewards/*.

    As in TRL, they are β times the log-ratio. For cpo, which has no reference, they are β times the
    log-probability, and for simpo β times its mean over tokens. For REBEL they are the log-ratio over η, in
    units of its rewards. A user's loss counts by the beta or eta that it takes, or else as beta 1. Of
    several losses the first decides.
    """
    first = names(loss_type)[0]
    if first in ("cpo", "simpo"):
        chosen, rejected = batch.chosen_logps, batch.rejected_logps
        if first == "simpo":
            chosen, rejected = chosen / batch.chosen_tokens, rejected / batch.rejected_tokens
    else:
        chosen, rejected = batch.chosen_logratios, batch.rejected_logratios
    keys = (own_losses.is_one(first) and _named(first)) or _keys(first)
    scale = values["beta"] if "beta" in keys else 1 / values["eta"] if "eta" in keys else 1.0
    return scale * chosen, scale * rejected

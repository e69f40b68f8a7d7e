"""What the config's loss_type stands for: a loss of loss_functions.py or of the user's, or a sum of several.

Values are a dict with the hyperparameters of a loss_type, by their names in the config.
"""

import difflib

from prefline.config import functions
from prefline.errors import InputError
from prefline.training import own_losses
from prefline.training.loss_functions import COLUMNS, HYPERPARAMETERS, LOSSES, SHARED, WHOLE_BATCH


def names(loss_type):
    """The losses (list of str) that a loss_type, one name or a list of names, adds up."""
    return [loss_type] if isinstance(loss_type, str) else list(loss_type)


def own_files(loss_type):
    """The files (list of str) of a loss_type's losses that are the user's own."""
    return sorted({functions.file_of(name) for name in names(loss_type) if own_losses.is_one(name)})


def columns(loss_type, values=None):
    """The columns (list of str) of the pairs that a loss_type cannot do without; values: as in `total`."""
    known = dict.fromkeys(column for columns in COLUMNS.values() for column in columns)
    needed = {column for name in names(loss_type) for column in COLUMNS.get(name, ())}
    for name in filter(own_losses.is_one, names(loss_type)):
        needed |= own_losses.trial(name, _own_values(values)).fields
    return [column for column in known if column in needed]


def sorting(loss_type, values):
    """The losses (list of str) of a loss_type in which a pair's loss depends on the others of the batch."""
    own = _own_values(values)
    return [
        name
        for name in names(loss_type)
        if name in WHOLE_BATCH or (own_losses.is_one(name) and own_losses.trial(name, own).whole_batch)
    ]


def hyperparameters(loss_type):
    """The names (set of str) of the hyperparameters that a loss_type, one name or a list of names, has."""
    taken = {key for name in names(loss_type) for key in _keys(name)}
    return taken if isinstance(loss_type, str) else taken | {"loss_weights"}


def _keys(name):
    if own_losses.is_one(name):
        return {"loss_arguments"} | SHARED.intersection(own_losses.hyperparameters(name)[0])
    return HYPERPARAMETERS[name]


def _own_values(values):
    """What losses of the user's may take of `values`, the hyperparameters of a loss_type."""
    return {key: values[key] for key in SHARED & values.keys()} | (values.get("loss_arguments") or {})


def check_names(loss_type):
    """Raise InputError for the first name in loss_type that is no loss."""
    for name in names(loss_type):
        if own_losses.is_one(name):
            own_losses.hyperparameters(name)
        elif name not in LOSSES:
            near = difflib.get_close_matches(name, LOSSES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(LOSSES)}, or FILE.py:NAME"
            raise InputError(f"there is no loss {name!r}; {hint}")


def check(loss_type, values):
    """Raise InputError unless `values` (dict), all hyperparameters of loss_type, suit it."""
    if "exo_pair" in names(loss_type) and values["label_smoothing"] == 0:
        raise InputError("exo_pair is infinite where label_smoothing is 0; the paper takes 1e-3")
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
    """The loss of each pair: (N,) float32, of one loss or the weighted sum of several.

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
    """The rewards that the policy implies: (chosen, rejected), each (N,) float32, for the metrics rewards/*.

    As in TRL: β times the log-ratio; of cpo, which has no reference, β times the log-probability, and of
    simpo β times its mean over tokens. Of REBEL the log-ratio over η, in units of the rewards it is trained
    on. A loss of the user's counts as the others do, by the beta or eta that it takes, or else as beta 1. Of
    several losses the first decides.
    """
    first = names(loss_type)[0]
    if first in ("cpo", "simpo"):
        chosen, rejected = batch.chosen_logps, batch.rejected_logps
        if first == "simpo":
            chosen, rejected = chosen / batch.chosen_tokens, rejected / batch.rejected_tokens
    else:
        chosen, rejected = batch.chosen_logratios, batch.rejected_logratios
    keys = _keys(first)
    scale = values["beta"] if "beta" in keys else 1 / values["eta"] if "eta" in keys else 1.0
    return scale * chosen, scale * rejected

"""Choose between several values of a training key: the later file's, and within a file the most specific.

A run's key is more specific than `train` and `online`. These and `models.NAME.training` are more specific
than `training_defaults`. A learning rate that config.yaml gives a run suits the embedded model, so an
overlay's `train.learning_rate` counts for every run whose rate the overlay does not set.
"""

import os
from pathlib import Path

from prefline.config.config_text import read_yaml
from prefline.data import sources
from prefline.errors import InputError

TRAINED = ("base", "sft", "reward_model")
# Keys of a model's chat template; a trained model has the template of its start.
OF_FINISHED = ("chat_template", "chat_template_kwargs", "system_message", "reasoning_markers")
# Keys whose value in a run counts even if a later file sets them in `train`.
IDENTITY = {"method", "loss_type", "loss_arguments", "loss_weights"}


def layers(files, given=None):
    """Return the contents (list of dict) of config files, the earliest first.

    files: paths as Snakemake has them: overlays, the later the stronger, then config.yaml, which is the
    weakest; given: dict, the values of --config, which are stronger than all files.
    """
    *overlays, default = map(Path, files)
    while overlays and overlays[0].exists() and overlays[0].samefile(default):
        del overlays[0]
    overlaid = [read_yaml(file) or {} for file in overlays]
    overlaid = [layer for layer in overlaid if layer.keys() - {"recipes"}]
    return [read_yaml(default) or {}, *overlaid, *([given] if given else [])]


def settle(config, layers):
    """Remove values from a config (dict) that less specific values of a later layer replace."""
    for name in _at(config, ("runs",)):
        less_special = [("train",), ("online",), ("training_defaults",)]
        _drop(config, layers, ("runs", name), less_special, kept=IDENTITY)
    for path in (("train",), *(("models", name, "training") for name in TRAINED)):
        _drop(config, layers, path, [("training_defaults",)])


def kept_runs(runs, layers):
    """Return the merged `runs` less those of files before an overlay's `runs: {}` or null.

    Merging ignores an empty section, but the user asks for no runs.
    """
    if runs is None:
        return {}
    empty = [number for number, layer in enumerate(layers) if "runs" in layer and not layer["runs"]]
    if not empty or not isinstance(runs, dict):
        return runs
    later = {name for layer in layers[empty[-1] + 1 :] for name in _at(layer, ("runs",))}
    return {name: run for name, run in runs.items() if name in later}


def complete(config):
    """Copy the values of training_defaults to all trainings of the config (dict) that do not set them."""
    defaults = config.pop("training_defaults")
    config["train"] = {**defaults, **config["train"]}
    for name in TRAINED:
        model = config["models"][name]
        model["training"] = {**defaults, **model["training"]}


def check_learning_rates(config, needed, layers, own):
    """Raise InputError if a model that an overlay names would be trained with config.yaml's learning rate.

    That rate suits the embedded model of a million parameters and would silently ruin a model of billions.
    needed: names of the models that the workflow uses; own: {run: the sections (list of tuple of keys) that
    have its own values}.
    """
    known = {model.get("source") for model in _at(layers[0], ("models",)).values()} if layers else set()
    trainings = [
        (name, [("models", name, "training")], f"models.{name}.training")
        for name in needed
        if config["models"][name]["source"] is None
    ]
    trainings += [("sft", own[run], "train") for run in config["runs"]]
    for name, paths, where in trainings if len(layers) > 1 else ():
        start = _start(config["models"], name)
        source = config["models"][start]["source"]
        general = [("train",)] * (paths[0][0] == "runs") + [("training_defaults",)]
        if sources.local_files(source) and not os.path.isdir(source):
            continue  # named_files.check has the better message
        if (
            source.rstrip("/") not in known
            and max(last_layer(layers, one, "learning_rate") for one in (*paths, *general)) == 0
        ):
            section = ".".join(paths[0])
            raise InputError(
                f"config: models.{start}.source names {source}, but {section} has the learning rate of "
                f"config.yaml, which suits the embedded model; set {where}.learning_rate in your overlay"
            )


def check_unused(config, layers):
    """Raise InputError if an overlay names data to train a model on, and that model is a finished one.

    The policy would be the finished model itself, and nothing would be trained on the data.
    """
    for name in TRAINED:
        source, path = config["models"][name]["source"], ("models", name)
        chosen = last_layer(layers, path, "source")
        for key in ("train_data", "eval_data"):
            last = last_layer(layers, path, key)
            given = last > 0 and _at(layers[last], path)[key] != _at(layers[0], path).get(key)
            if source is not None and given and last >= chosen:
                raise InputError(
                    f"config: models.{name}.{key} is never read, because models.{name}.source names the "
                    f"finished model {source}; to train that model, write it as models.start.source, and "
                    f"models.{name} with source: null and init: start; else remove {key}"
                )


def _start(models, name):
    """Return the finished model (str) that a model is, or that its training begins with."""
    for _ in models:
        if models[name]["source"] is None:
            name = models[name]["init"]
    return name


def _drop(config, layers, path, less_special, kept=()):
    section = _at(config, path)
    for key in [key for key in section if key not in kept]:
        last = last_layer(layers, path, key)
        if any(last_layer(layers, general, key) > last for general in less_special):
            del section[key]


def last_layer(layers, path, key):
    """Return the number of the last layer that has a key in the section at `path`; -1 if none has."""
    return max((number for number, layer in enumerate(layers) if key in _at(layer, path)), default=-1)


def _at(section, path):
    """Return the section at a path (tuple of keys) of a config; an empty one where there is none."""
    for key in path:
        section = section.get(key) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else {}

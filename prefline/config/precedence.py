"""Which of several values of a training key counts: the later file's, and within a file the more special.

A run's own key is more special than `train` and `online`, and these are more special than
`training_defaults`; so is `models.NAME.training`. A learning rate that config.yaml gives a run suits the
embedded model: where an overlay says `train.learning_rate`, it counts for every run whose rate it does not
say, too.
"""

from pathlib import Path

from prefline.config.schema import read_yaml
from prefline.data import sources
from prefline.errors import InputError

TRAINED = ("base", "sft", "reward_model")
# What a run is, however `train` makes others.
IDENTITY = {"method", "loss_type", "loss_arguments", "loss_weights"}


def layers(files, given=None):
    """Return the contents (list of dict) of config files, the earliest first.

    files: paths as Snakemake has them: overlays, the later the stronger, then config.yaml, which is the
    weakest; given: dict, the values of --config, which are stronger than all files.
    """
    *overlays, default = map(Path, files)
    while overlays and overlays[0].exists() and overlays[0].samefile(default):
        del overlays[0]
    files = [read_yaml(file) or {} for file in (default, *overlays)]
    return [*files, *([given] if given else [])]


def settle(config, layers):
    """Take the values out of a config (dict) that a later layer's less special ones replace."""
    for name in _at(config, ("runs",)):
        less_special = [("train",), ("online",), ("training_defaults",)]
        _drop(config, layers, ("runs", name), less_special, kept=IDENTITY)
    for path in (("train",), *(("models", name, "training") for name in TRAINED)):
        _drop(config, layers, path, [("training_defaults",)])


def complete(config):
    """Move the values of training_defaults to where a training of the config (dict) says nothing else."""
    defaults = config.pop("training_defaults")
    config["train"] = {**defaults, **config["train"]}
    for name in TRAINED:
        model = config["models"][name]
        model["training"] = {**defaults, **model["training"]}


def check_learning_rates(config, needed, layers):
    """Raise InputError if a model that an overlay names would be trained with config.yaml's learning rate.

    It suits the embedded model, of a million parameters, and would ruin one of billions without a word.
    needed: names of the models that the workflow uses.
    """
    known = {model.get("source") for model in _at(layers[0], ("models",)).values()} if layers else set()
    trainings = [
        (name, ("models", name, "training"), f"models.{name}.training")
        for name in needed
        if config["models"][name]["source"] is None
    ]
    trainings += [("sft", ("runs", run), "train") for run in config["runs"]]
    for name, path, where in trainings if len(layers) > 1 else ():
        start = _start(config["models"], name)
        source = config["models"][start]["source"]
        general = [("train",)] * (path[0] == "runs") + [("training_defaults",)]
        if sources.local_files(source) and not Path(source).is_dir():
            continue  # which named_files.check says better
        if (
            source.rstrip("/") not in known
            and max(_last(layers, one, "learning_rate") for one in (path, *general)) == 0
        ):
            section = ".".join(path)
            raise InputError(
                f"config: models.{start}.source names {source}, but {section} has the learning rate of "
                f"config.yaml, which suits the embedded model; say {where}.learning_rate in your overlay"
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
        last = _last(layers, path, key)
        if any(_last(layers, general, key) > last for general in less_special):
            del section[key]


def _last(layers, path, key):
    """Return the number of the last layer that has a key in the section at `path`; -1 if none has."""
    return max((number for number, layer in enumerate(layers) if key in _at(layer, path)), default=-1)


def _at(section, path):
    """Return the section at a path (tuple of keys) of a config; an empty one where there is none."""
    for key in path:
        section = section.get(key) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else {}

"""Refuse a path that is no policy, before a program that people start loads or serves it."""

from pathlib import Path

from prefline import files, model_directory, paths
from prefline.engines.model_files import ModelFiles
from prefline.errors import InputError

# Ends of the names of architectures that answer.
ANSWER = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def check(path):
    """Return the ModelFiles of the policy in the directory `path` (str); InputError for all else.

    Transformers would load a reward model as a policy, with a random head.
    """
    if wrong := paths.mistake(path, "directory"):
        raise InputError(f"{wrong}; `snakemake results/models/NAME` makes a model of the config")
    directory = Path(path)
    names = sorted(one.name for one in directory.iterdir())
    if wrong := model_directory.broken_file(directory) or model_directory.mistake(directory, names):
        raise InputError(f"{path}: {wrong}")
    if wrong := model_directory.cut_short(directory):
        raise InputError(f"{path}: {wrong}; make or fetch the model again")
    architectures = files.read_json(directory / "config.json").get("architectures") or []
    if architectures and not any(name.endswith(ANSWER) for name in architectures):
        raise InputError(
            f"{path} is a {architectures[0]}, which scores texts and answers none; name a policy"
        )
    return ModelFiles(path)

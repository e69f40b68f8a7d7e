"""Read params.yaml, a small overlay of config.yaml for experiments: recipes in turn, then values."""

from pathlib import Path

from prefline import paths
from prefline.config import config_text
from prefline.errors import InputError

FILE = "params.yaml"


def files():
    """Return the recipes that params.yaml names, and itself (list of str); [] if it is missing."""
    if not Path(FILE).exists():
        return []
    config_text.check(FILE)
    named = (config_text.read_yaml(FILE) or {}).get("recipes", [])
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise InputError(f"{FILE}: recipes: {named!r} is no list of files; write [recipes/rebel.yaml]")
    for name in named:
        if wrong := paths.mistake(name, "file"):
            raise InputError(f"{FILE}: recipes: {wrong}")
    return [*named, FILE]

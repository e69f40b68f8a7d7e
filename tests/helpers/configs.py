"""The default config, changed in one place, and the schema's keys, for tests of the config."""

import copy
import shutil
from pathlib import Path

import pytest
import yaml

from prefline.config import loading as configuration
from prefline.config import schema as schemas
from prefline.errors import InputError

TEXT = Path("config.yaml").read_text(encoding="utf-8")
DEFAULT = yaml.safe_load(TEXT)
# With the training defaults where a section leaves them out.
COMPLETE = configuration.load(DEFAULT)


def leaves(section, path=()):
    """(path, value) of every value of a nested dict that is no dict itself."""
    for key, value in section.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def put(config, path, value, key=None):
    """Replace the value at `path`; with `key`, move the old one there."""
    for part in path[:-1]:
        config = config[part]
    if key is not None:
        value = config.pop(path[-1])
    config[key or path[-1]] = value


def changed(path, value, key=None):
    """The default config with the value at `path` replaced, or moved to `key` beside it."""
    config = copy.deepcopy(DEFAULT)
    put(config, path, value, key)
    return config


def model_directory(path):
    """Make the directory `path` one that looks like a model with weights; return its path (str)."""
    shutil.copytree("data/policy", path)
    (Path(path) / "model.safetensors").write_bytes(b"weights")
    return str(path)


def refused(config):
    """The sentence with which `config` is refused."""
    with pytest.raises(InputError) as error:
        configuration.load(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def properties(schema, path=()):
    """(path, resolved schema) of every property that the schema describes, at any depth."""
    schema = schemas.resolved(schema)
    parts = [schema, *(schemas.resolved(part) for part in schema.get("allOf", []))]
    for part in parts:
        for name, child in part.get("properties", {}).items():
            yield (*path, name), schemas.resolved(child)
            yield from properties(child, (*path, name))
        if isinstance(part.get("additionalProperties"), dict):
            yield from properties(part["additionalProperties"], (*path, "*"))


PROPERTIES = list(properties(schemas.whole()))

"""The closed schema of config.yaml: what each key means, its type, its range and its choices.

rules/schemas/config.schema.yaml is the one place where a key is described. The config is held against it
before the workflow starts (loading.py), scripts make their flags of it (section.py), and the reference of the
configuration is written from it.
"""

import functools
import math
from pathlib import Path

import yaml

FILE = Path(__file__).parents[2] / "rules/schemas/config.schema.yaml"


def read_yaml(file):
    """Return what a YAML file (Path) holds, read by libyaml where it is there, ten times as fast."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return loader(file.read_text(encoding="utf-8")).get_single_data()


@functools.cache
def whole():
    """Return the schema (dict)."""
    return read_yaml(FILE)


def resolved(schema):
    """Return a schema (dict) with the one that it refers to in its place; what is beside $ref wins."""
    while "$ref" in schema:
        named = whole()["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        schema = {**named, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def properties(schema):
    """Return {key: resolved schema} of a section's schema, the keys that it takes from others included."""
    schema, found = resolved(schema), {}
    for part in schema.get("allOf", []):
        found |= properties(part)
    return found | {key: resolved(one) for key, one in schema.get("properties", {}).items()}


def at(path):
    """Return the resolved schema at a dotted path: "rank", "models.sft.training", "runs.NAME" for any run.

    Raises KeyError for a path that the schema does not have.
    """
    schema = resolved(whole())
    for key in path.split("."):
        known, named = properties(schema), schema.get("additionalProperties")
        if key not in known and not isinstance(named, dict):
            raise KeyError(f"the schema has no section {path}")
        schema = known[key] if key in known else resolved(named)
    return schema


def kinds(path):
    """Return {kind: names of the keys that it takes} of the sections at a dotted path: "rewards.NAME"."""
    return at(path)["kinds"]


def types(schema):
    """Return the types (tuple of str) that a value may have, in JSON schema's words."""
    kinds = schema.get("type", ())
    if not kinds and "enum" in schema:
        return ("string",)
    return (kinds,) if isinstance(kinds, str) else tuple(kinds)


def is_number(value):
    """Tell whether a value is a finite number and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_integer(value):
    """Tell whether a value is a whole number, written as one."""
    return isinstance(value, int) and not isinstance(value, bool)

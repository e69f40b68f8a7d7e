"""The closed schema of config.yaml: what each key means, its type, its range and its choices.

rules/schemas/config.schema.yaml is the only description of a key. The config is validated with it before
the workflow starts (loading.py), scripts make their flags from it (section.py), and so is the configuration
reference of the docs.
"""

import functools
import sys
from pathlib import Path

from prefline.config import config_text

FILE = Path(__file__).parents[2] / "rules/schemas/config.schema.yaml"
# The largest whole number that every JSON reader and every float represents exactly.
LARGEST = 2**53


@functools.cache
def whole():
    """Return the schema (dict)."""
    return config_text.read_yaml(FILE)


def resolved(schema):
    """Return a schema (dict) with its $ref replaced by the schema it names; keys beside $ref win."""
    while "$ref" in schema:
        named = whole()["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        schema = {**named, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def properties(schema):
    """Return {key: resolved schema} of a section's schema, with the keys that it includes from others."""
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
    """Tell whether a value is a finite number and not a boolean."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max  # false for inf and nan
    )


def is_integer(value):
    """Tell whether a value is a whole number, written as one, and no larger than LARGEST."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST

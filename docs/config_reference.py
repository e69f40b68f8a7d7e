"""Make the configuration reference from the schema and the values of config.yaml.

A key of the schema is an entry of the page: its path, type and range, default and description. NAME in a path
is a name that users choose, or one of several sections with the same keys.
"""

import dataclasses
import re
from pathlib import Path

import yaml

from prefline.config import loading
from prefline.config import schema as schemas
from prefline.config.schema import properties
from prefline.training import losses

TYPES = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
# Sections whose keys depend on `kind`.
KINDS = {path: schemas.kinds(path) for path in ("endpoints.NAME", "rewards.NAME", "benchmarks.NAME")}
# A run also takes the keys of these sections.
OVERRIDES = {"runs": ("train", "online")}


@dataclasses.dataclass
class Key:
    """A key of the configuration: its path, its resolved schema, and its defaults as text, by section."""

    path: str
    schema: dict
    defaults: dict


def keys(path, schema, values):
    """Yield every Key at and below `path`. values: {name: value} of each section that the path stands for."""
    schema = schemas.resolved(schema)
    if "description" in schema:
        yield Key(path, schema, {name: _shown(value) for name, value in values.items()})
    own = path.removesuffix(".NAME") in OVERRIDES
    inner = schema.get("properties", {}) if own else properties(schema)
    further = schema.get("additionalProperties")
    named = schemas.resolved(further) if isinstance(further, dict) else {}
    if path == "models":
        # Three sections with the same keys; others have two of these.
        shared = {"$ref": "#/$defs/trained_model"}
        yield from keys("models.NAME", shared, {name: values["models"][name] for name in inner})
    elif "properties" in named:
        entries = {name: one for value in values.values() for name, one in (value or {}).items()}
        yield from keys(f"{path}.NAME", named, entries)
    else:
        for name, one in inner.items():
            below = {section: value[name] for section, value in values.items() if _has(value, name)}
            yield from keys(f"{path}.{name}" if path else name, one, below)


def _has(value, name):
    return isinstance(value, dict) and name in value


def _shown(value):
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
    return text.splitlines()[0]


def _listed(words, last):
    *others, final = map(str, words)
    return f"{', '.join(others)} {last} {final}" if others else final


def type_of(schema):
    """Return type and range of a key in words."""
    if "enum" in schema:
        return _listed(schema["enum"], "or")
    if "then" in schema:
        return f"one of them, or a list: {type_of(schemas.resolved(schema['then']))}"
    kinds = schema.get("type", "object")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    words = []
    for kind in kinds:
        if kind == "array":
            word = f"list of {type_of(schemas.resolved(schema['items']))}" if "items" in schema else "list"
        elif kind == "object":
            of = schema.get("additionalProperties")
            of = schemas.resolved(of) if isinstance(of, dict) else {}
            word = f"section of {type_of(of)}" if of and "properties" not in of else "section"
        else:
            word = TYPES[kind]
        if kind in ("integer", "number"):
            bounds = [f"{sign} {schema[name]}" for name, sign in BOUNDS.items() if name in schema]
            word = " ".join([word, " and ".join(bounds)]).strip()
        words.append(word)
    return " or ".join(words)


def default_of(key):
    """Return the default of a Key in words; None if config.yaml has none, or if the key is a section."""
    is_section = "properties" in key.schema and "null" not in key.schema["type"]
    if not key.defaults or is_section:
        return None
    # Entries with names that users choose are those of the embedded experiment.
    of_ones_own = ".NAME" in key.path and not key.path.startswith("models.")
    if len(set(key.defaults.values())) == 1 and not of_ones_own:
        return f"`{next(iter(key.defaults.values()))}`"
    return ", ".join(f"`{value}` ({name})" for name, value in key.defaults.items())


def kinds_of(path):
    """Return the kinds of its section that a key belongs to: list of str, empty for a key of all kinds."""
    section, _, name = path.rpartition(".")
    return [kind for kind, names in KINDS.get(section, {}).items() if name in names]


def description_of(key):
    text = " ".join(key.schema.get("description", "").split())
    # Tell sections with the same keys apart.
    if key.path == "models":
        text += "".join(
            f"\n- `{name}`: {one['description']}" for name, one in key.schema["properties"].items()
        )
    if key.path in OVERRIDES:
        sections = _listed([f"[`{name}`](#{name})" for name in OVERRIDES[key.path]], "and")
        text += f"\n\nA run also takes every key of {sections}."
    kinds = kinds_of(key.path)
    if kinds:
        text += f"\n\nOf the kind{'s' * (len(kinds) > 1)} {_listed([f'`{kind}`' for kind in kinds], 'and')}."
    return re.sub(r"\bdocs/(\w+)\.md", r"[docs/\1.md](\1.md)", text)


def entry(key):
    """Return a Key as Sphinx's directive for a configuration value."""
    kind = type_of(key.schema)
    if key.path.endswith(".loss_type"):
        kind = f"{_listed([*losses.LOSSES, 'FILE.py:NAME'], 'or')}, or a list of them"
    lines = [f"````{{confval}} {key.path}", f":type: {kind}"]
    default = default_of(key)
    lines += [f":default: {default}"] if default else []
    return "\n".join([*lines, "", description_of(key), "````", ""])


def everything():
    """Return every Key by section: {name: list of Key}."""
    written = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))
    config = written | loading.load(written)
    return {
        name: list(keys(name, schema, {name: config[name]}))
        for name, schema in schemas.whole()["properties"].items()
    }


def markdown():
    """Return the sections of the page, as Markdown for MyST."""
    parts = []
    for name, found in everything().items():
        head, *rest = found
        parts.append(f"\n## {name}\n")
        parts += [entry(head)] if not rest else [description_of(head) + "\n", *map(entry, rest)]
    return "\n".join(parts)

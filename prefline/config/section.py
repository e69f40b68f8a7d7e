"""Pass config values to jobs: sections become flags in a rule, and flags become values in a script.

A rule passes `flags(section("rank"), seed=config["seed"])`, and its script calls `section.add(parser,
"rank")`. Names, types, choices and help texts come from the schema. So a new key of a section is written in
the config, in the schema and where it is used.
"""

import argparse
import dataclasses
import json
import re
import shlex

from prefline.config import schema

BOUNDS = {
    "minimum": (lambda value, bound: value >= bound, "at least"),
    "exclusiveMinimum": (lambda value, bound: value > bound, "above"),
    "maximum": (lambda value, bound: value <= bound, "at most"),
    "exclusiveMaximum": (lambda value, bound: value < bound, "below"),
}


def parser(about):
    """Return the argparse parser of a script; about: str, its docstring, which --help shows."""
    return argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)


def flags(*sections, **more):
    """Return config values as command-line flags, quoted for the shell: {"top_k": 64} is --top-k 64.

    All values of a job are one string, because Snakemake compares params as a set and would miss two
    numbers that swap places. Flags are sorted, because an overlay reorders keys. `reader` restores the
    exact values.
    """
    values, words = {}, []
    for part in (*sections, more):
        values |= part
    for key, value in sorted(values.items()):
        name, text = _flag(key), value
        if not isinstance(value, str) or _is_json(value) or value == "--":  # which argparse drops
            text = json.dumps(value, sort_keys=True)
        # argparse would take a separate value that begins with a dash for a flag.
        words += [f"{name}={text}"] if text.startswith("-") else [name, text]
    return shlex.join(words)


def add(parser, path, *keys, optional=()):
    """Add the flags of a section of the config to an argparse parser, all of them or those of some keys.

    path: dotted, as schema.at takes it; for a single value such as "seed" it is the flag itself. No flag
    has a default: the value comes from the config. Flags of `optional` keys may be left out; the parsed
    namespace then lacks the attribute. Raises KeyError for a key that the schema does not have.
    """
    section = schema.at(path)
    known = schema.properties(section) or {path.rsplit(".", 1)[-1]: section}
    for key in keys or known:
        missing = {"default": argparse.SUPPRESS} if key in optional else {"required": True}
        parser.add_argument(
            _flag(key),
            type=reader(known[key]),
            metavar=_metavar(known[key]),
            help=" ".join(known[key].get("description", "").split()).replace("%", "%%"),
            **missing,
        )


def pick(made, values):
    """Return the dataclass `made` with those of `values` (dict, such as vars(args)) that its fields name."""
    return made(**{field.name: values[field.name] for field in dataclasses.fields(made)})


def reader(section):
    """Return a function that reads a flag's text as a value of the schema `section`, for argparse.

    The function raises argparse.ArgumentTypeError, which argparse prints with the flag's name.
    """
    kinds, choices = schema.types(section), section.get("enum")

    def read(text):
        value = json.loads(text) if _is_json(text) else text
        if "number" in kinds and schema.is_integer(value):
            value = float(value)
        if not _is_of(value, kinds) and "string" in kinds:
            value = text
        if not _is_of(value, kinds):
            raise argparse.ArgumentTypeError(f"{text!r} is not of the type {' or '.join(kinds)}")
        if choices and value not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(map(str, choices))}")
        if isinstance(value, str) and not re.search(section.get("pattern", ""), value):
            raise argparse.ArgumentTypeError(f"{text!r} does not match {section['pattern']}")
        for name, (holds, words) in BOUNDS.items():
            if name in section and schema.is_number(value) and not holds(value, section[name]):
                raise argparse.ArgumentTypeError(f"{text} must be {words} {section[name]}")
        return value

    return read


def _flag(key):
    return f"--{key.replace('_', '-')}"


def _metavar(section):
    if "enum" in section:
        return "{" + ",".join(section["enum"]) + "}"
    return "|".join(schema.types(section)).upper() or "JSON"


def _is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_of(value, kinds):
    checks = {
        "string": lambda: isinstance(value, str),
        "integer": lambda: schema.is_integer(value),
        "number": lambda: schema.is_number(value),
        "boolean": lambda: isinstance(value, bool),
        "null": lambda: value is None,
        "array": lambda: isinstance(value, list),
        "object": lambda: isinstance(value, dict),
    }
    return not kinds or any(checks[kind]() for kind in kinds)

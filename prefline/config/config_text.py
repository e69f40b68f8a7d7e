"""Check the text of a config file, and its values for what no key allows.

YAML reads some words as another type than they seem, and silently takes the last of two equal keys. Snakemake
reads a file as JSON first, in which white space may be a tab; YAML refuses tabs.
"""

import json
import math
import re
import unicodedata
from pathlib import Path

import yaml

from prefline import unicode
from prefline.errors import InputError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast
# Whole numbers of YAML 1.1 that look like others: 010 is 8, and 1:30 is 90.
ODD_NUMBERS = re.compile(r"[-+]?(0[0-7_]+|[1-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
# Control characters that a text for language models may have.
WHITE_SPACE = "\n\r\t"


def read_yaml(file):
    """Return what a config file or a schema (path) holds."""
    return LOADER(_text(file)).get_single_data()


def check(file):
    """Raise InputError, with the line, for a config file that YAML reads differently than it seems."""
    try:
        node = yaml.compose(_text(file), yaml.SafeLoader)  # the other crashes on deep nesting
    except (yaml.YAMLError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = file if line is None else f"{file}, line {line + 1}"
        problem = getattr(error, "problem", None) or "it is nested too deeply"
        raise InputError(f"{where}: YAML cannot read this: {problem}") from None
    if node is not None:
        _check_node(node, file, (), set(), [])


def _text(file):
    """Return the text of a config file (path); in JSON, blanks replace tabs."""
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is not coded in UTF-8 ({error.reason}); save it as UTF-8") from None
    if "\t" in text:
        try:
            json.loads(text)
        except ValueError:
            return text
        return text.replace("\t", " ")  # within JSON's strings a tab is written \t
    return text


def _check_node(node, file, path, done, above):
    """Raise InputError for equal keys, odd numbers, and nodes that contain themselves, below a YAML node."""
    where = f"{file}, line {node.start_mark.line + 1}"
    if node in above:
        raise InputError(f"{where}: {'.'.join(path[:-1])} contains itself; write it out without the anchor")
    if isinstance(node, yaml.ScalarNode):
        number = node.tag.rpartition(":")[2] in ("int", "float")
        if number and not node.style and ODD_NUMBERS.fullmatch(node.value):
            read = yaml.safe_load(node.value)
            raise InputError(
                f"{where}: {'.'.join(path)}: YAML reads {node.value} as the number {read}; write the number "
                "that you mean, or put a text in quotes"
            )
    if node in done or isinstance(node, yaml.ScalarNode):
        return
    done.add(node)
    if isinstance(node, yaml.SequenceNode):
        for number, child in enumerate(node.value):
            _check_node(child, file, (*path, str(number)), done, [*above, node])
        return
    seen = set()
    for key, value in node.value:
        here, line = (*path, str(key.value)), key.start_mark.line + 1
        if str(key.value) in seen:
            raise InputError(f"{file}, line {line}: {'.'.join(here)} is given twice; rename or remove one")
        seen.add(str(key.value))
        _check_node(value, file, here, done, [*above, node])


def check_values(section, path=()):
    """Raise InputError for what no key allows: names that are not text, dates, control characters.

    section: the config or a part of it, as YAML gave it; path: tuple of keys that lead to it. Messages do not
    repeat values, which may be secrets.
    """
    key = "config" if not path else f"config: {'.'.join(path)}"
    if isinstance(section, dict):
        for name, value in section.items():
            if not isinstance(name, str):
                read = type(name).__name__
                raise InputError(
                    f"{key}: YAML reads the name {name} as {read}; rename it, or put it in quotes"
                )
            _check_characters(name, f"{key}: the name {name!r:.60}", "")
            check_values(value, (*path, name))
    elif isinstance(section, list):
        for number, value in enumerate(section):
            check_values(value, (*path, str(number)))
    elif isinstance(section, str):
        # Arguments of functions are passed as JSON, and the system message may have several lines.
        if "arguments" not in path:
            _check_characters(section, key, WHITE_SPACE if path[-1:] == ("system",) else "")
        elif not unicode.is_valid(section):
            raise InputError(f"{key}: {unicode.FAULT}; write whole characters")
    elif isinstance(section, float) and "arguments" in path and not math.isfinite(section):
        raise InputError(f"{key}: {section} is not a finite number; write one")
    elif not isinstance(section, (bool, int, float, type(None))):
        raise InputError(
            f"{key}: YAML reads this as {type(section).__name__}, which no key allows; put it in quotes"
        )


def _check_characters(text, where, allowed):
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in allowed:
            raise InputError(f"{where}: has the control character {character!r}; remove it")

"""Say in a sentence what jsonschema found wrong with the config."""

import contextlib
import difflib
import re
import unicodedata

from prefline.config import schema as schemas

# Most characters of a message about a value; longer ones are cut in the middle.
LONGEST = 300
# The pattern of names in the schema: no two of them look the same, in writing or to a file system.
NAME = "^[a-z][a-z0-9_]*$"


def rank(error):
    """Return the sort key of a mistake: an unknown key comes before a key that is missing because of it.

    A wrong value makes jsonschema call the rest of its section unevaluated; that is not a second mistake.
    """
    if error.validator in ("additionalProperties", "unevaluatedProperties"):
        return 0 if _unknown_key(error) else 2
    return 1


def sentence(error):
    """Return what a ValidationError of jsonschema reports, as a sentence (str) without its full stop."""
    key = ".".join(str(part) for part in error.absolute_path) or "the top level"
    schema = error.schema
    if error.validator in ("additionalProperties", "unevaluatedProperties"):
        known, unknown = sorted(schemas.properties(schema)), _unknown_key(error)
        near = difflib.get_close_matches(str(unknown), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{key} has no key {unknown!r}; {hint}"
    message = _of_size(error) or error.message
    if len(message) > LONGEST:
        message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}"
    if isinstance(error.instance, str) and error.schema.get("pattern") == NAME:
        return f"{key}: {_of_name(error.instance, error.schema['maxLength'])}"
    if error.validator == "pattern" and "description" in schema:
        message = f"{error.instance!r} is not of the form that this key takes"
    if error.validator == "enum" and isinstance(error.instance, str):
        near = difflib.get_close_matches(error.instance, map(str, error.validator_value), n=1)
        if near:
            message = f"{error.instance!r} is none of its values; did you mean {near[0]!r}?"
    meaning = f" ({schema['description']})" if "description" in schema and error.instance is not None else ""
    return f"{key}: {message}{meaning}"


def _of_size(error):
    """Return what is wrong (str) with a whole number that is too large for the config, or None."""
    if error.validator != "type" or "integer" not in schemas.types(error.schema):
        return None
    with contextlib.suppress(TypeError, ValueError):
        number = error.instance if isinstance(error.instance, int) else float(error.instance)
        if number > schemas.LARGEST:
            return f"{error.instance} is too large; {schemas.LARGEST} is the largest"
    return None


def _of_name(name, longest):
    """Return what is wrong (str) with a name (str) of a run, a model, an experiment, …"""
    if len(name) > longest:
        return f"the name {name[:20]!r}… has {len(name)} characters, where {longest} are the most; shorten it"
    odd = next((one for one in name if not re.fullmatch("[a-z0-9_]", one)), None)
    if odd is None:
        return f"the name {name!r} does not begin with a letter; rename it"
    called = "" if odd.isascii() else f" ({unicodedata.name(odd, 'without a name')})"
    return (
        f"the name {name!r} has the character {odd!r}{called}; use lower-case letters from a to z, digits "
        "and underscores"
    )


def _unknown_key(error):
    """Return the first key of a section that its schema lacks, or None."""
    known = schemas.properties(error.schema)
    return next((name for name in error.instance if name not in known), None)

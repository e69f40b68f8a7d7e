"""Put a text into Markdown unchanged, whoever wrote it."""

import re

from markupsafe import Markup

# Control characters, which terminals obey, and those that turn the direction of what follows.
UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
INERT = re.compile(r"\S(?:[^`|<>&\\\n\r]*\S)?")  # in a code span, in a table, too


def literal(text):
    """Return `text` (str) as a line of Markdown that shows it literally: no link, image, mathematics or HTML.

    It belongs within a line, or in a cell of a table. Line breaks and indentation are kept. Control
    characters become U+FFFD.
    """
    text = UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", text)
    # GitHub makes links of addresses.
    text = re.sub(r"(?<=\w):(?=//)", "&#58;", text)
    text = re.sub(r"\b(www)\.", r"\1&#46;", text, flags=re.I).replace("@", "&#64;")
    lines = [
        re.sub(r"^ +|(?<= ) +", lambda blanks: "&nbsp;" * len(blanks[0]), line) for line in text.splitlines()
    ]
    return Markup("<br>".join(lines))


def code(text):
    """Return `text` (str) as code in a line of Markdown, or in a cell of its tables."""
    plain = INERT.fullmatch(text) and not UNSEEN.search(text)
    return Markup(f"`{text}`" if plain else f"<code>{literal(text)}</code>")

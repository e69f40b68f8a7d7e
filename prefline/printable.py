"""Show text of models, servers and programs on a terminal."""


def printable(text):
    """Return a str without control characters, which a terminal would obey: each becomes its escape.

    Line ends remain, and so do tabs. Directions of writing and lone surrogates are control characters, too.
    """
    return "".join(
        one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in text
    )

"""Text that can be written: Unicode without halves of characters.

JSON may escape half of a character alone, as in "\\ud83d", and a byte that is no UTF-8 is read as such.
No file, tokenizer or server takes one. One rule holds at all entrances: what servers and engines say is made
valid; a row of data with such a text is dropped and counted, or refused where the data must be whole.
"""

FAULT = "has text that is not Unicode: a byte that is not UTF-8, or half of a character"
ADVICE = "correct the row, or save the file as UTF-8"


def is_valid(value):
    """Return whether all texts in a JSON value, those of keys included, are valid."""
    if isinstance(value, str):
        if value.isascii():
            return True
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    if isinstance(value, dict):
        return all(is_valid(key) and is_valid(one) for key, one in value.items())
    return all(map(is_valid, value)) if isinstance(value, (list, tuple)) else True


def valid(value):
    """Return a JSON value with � for each half of a character that lacks its other half."""
    if isinstance(value, str):
        return (
            value if is_valid(value) else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        )
    if isinstance(value, dict):
        return {valid(key): valid(one) for key, one in value.items()}
    return [valid(one) for one in value] if isinstance(value, list) else value

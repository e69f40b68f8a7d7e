"""Rewards that need no model: functions of (messages, completion, reference, **arguments) -> float.

messages: list of {"role", "content"} up to the answer; completion: str; reference: the right answer (str) of
the prompt's row, or None. Write your own functions in the same form, in your own file.
"""

import json
import re
import unicodedata

from prefline.errors import InputError


def exact_match(messages, completion, reference: str):
    """Return 1.0 if the completion is the reference, ignoring case, outer space and a last full stop."""
    return float(_plain(completion) == _plain(_needed(reference)))


def last_number(messages, completion, reference: str):
    """Return 1.0 if the last number in the completion is the reference's last, as in GSM8K."""
    wanted, found = _numbers(_needed(reference)), _numbers(completion)
    if not wanted:
        raise InputError(f"the reference {reference!r:.60} has no number")
    return float(bool(found) and found[-1] == wanted[-1])


def regex(messages, completion, reference, pattern):
    """Return 1.0 if the regular expression `pattern` is found anywhere in the completion."""
    return float(re.search(pattern, completion) is not None)


def length(messages, completion, reference, target=0):
    """Return minus the number of characters by which the completion is longer or shorter than `target`."""
    return -float(abs(len(completion) - target))


def valid_json(messages, completion, reference):
    """Return 1.0 if the completion, without a code fence around it, is JSON."""
    fenced = re.fullmatch(r"\s*```(?:json)?\n(.*)```\s*", completion, re.DOTALL)
    try:
        json.loads(fenced[1] if fenced else completion)
    except ValueError:
        return 0.0
    return 1.0


def _needed(reference):
    if reference is None:
        raise InputError("the prompt has no reference answer; name its column in prompts.columns.reference")
    return reference


def _plain(text):
    return unicodedata.normalize("NFC", text).strip().removesuffix(".").casefold()


def _numbers(text):
    return [float(word.replace(",", "")) for word in re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)]

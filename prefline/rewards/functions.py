"""Rewards that need no model: functions of (messages, completion, reference, **arguments) -> float.

messages: list of {"role", "content"} up to the answer; completion: str; reference: the right answer (str) of
the prompt's row, or None. Functions of your own look the same and stand in a file of your own.
"""

import json
import re
import unicodedata

from prefline.errors import InputError


def exact_match(messages, completion, reference):
    """1.0 if the completion is the reference, letter case, outer white space and a last full stop aside."""
    return float(_plain(completion) == _plain(_needed(reference)))


def last_number(messages, completion, reference):
    """1.0 if the last number in the completion is the reference's last, as in answers to sums (GSM8K)."""
    wanted, found = _numbers(_needed(reference)), _numbers(completion)
    if not wanted:
        raise InputError(f"the reference {reference!r:.60} has no number")
    return float(bool(found) and found[-1] == wanted[-1])


def regex(messages, completion, reference, pattern):
    """1.0 if the regular expression `pattern` is found anywhere in the completion."""
    return float(re.search(pattern, completion) is not None)


def length(messages, completion, reference, target=0):
    """Minus the number of characters by which the completion is longer or shorter than `target`."""
    return -float(abs(len(completion) - target))


def valid_json(messages, completion, reference):
    """1.0 if the completion, without a code fence around it, is JSON."""
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

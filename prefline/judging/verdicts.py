"""What a judge's words decide: a verdict or a rating, or nothing that can be read.

The marks are FastChat's. Where it takes the first of several that contradict each other, here nothing is
decided, and the judge is asked again: [[A]] and [[B]] in one answer are no verdict for A.
"""

import re

MARKS = {"[[A]]": "A", "[[B]]": "B", "[[C]]": "tie"}
RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]")
RATING_BACKUP = re.compile(r"\[(\d+\.?\d*)\]")
LOWEST, HIGHEST = 1.0, 10.0


def verdict(text):
    """Who won by a judge's words (str): "A", "B", "tie", or None if they do not say, or say two things."""
    found = {winner for mark, winner in MARKS.items() if mark in text}
    return found.pop() if len(found) == 1 else None


def rating(text):
    """The rating (float from 1 to 10) in a judge's words (str), None if there is none or more than one."""
    found = {float(number) for number in RATING.findall(text) or RATING_BACKUP.findall(text)}
    value = found.pop() if len(found) == 1 else None
    return value if value is not None and LOWEST <= value <= HIGHEST else None

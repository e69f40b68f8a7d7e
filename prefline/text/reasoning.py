"""Reasoning before an answer: where it begins, where it ends, and the answer without it."""

import re
from typing import NamedTuple


class Markers(NamedTuple):
    """The texts (str) between which a policy reasons before it answers."""

    opening: str
    closing: str


# The pairs that published templates write; a tokenizer's own (`reasoning_markers`) come first.
KNOWN = (
    Markers("<think>", "</think>"),
    Markers("[THINK]", "[/THINK]"),
    Markers("<|START_THINKING|>", "<|END_THINKING|>"),
    Markers("<|channel>thought", "<channel|>"),
    Markers("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)

BLANK_LINES = re.compile(r"(?:[^\S\n]*\n)*")
# The beginning of a part of a completion in harmony, such as `<|channel|>final <|constrain|>json<|message|>`.
CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)(?:(?!<\|message\|>|<\|channel\|>).)*<\|message\|>", re.DOTALL)


def markers_of(tokenizer):
    """Return the Markers (tuple) that policies with this tokenizer may use."""
    own = tokenizer.init_kwargs.get("reasoning_markers")
    return (Markers(*own), *KNOWN) if own else KNOWN


def opened_by(text, markers):
    """Return the Markers whose reasoning `text` (str), such as a prompt, leaves open at its end; or None."""
    stripped = text.rstrip()
    return next((pair for pair in markers if stripped.endswith(pair.opening)), None)


def opening_of(text, markers):
    """Return the Markers whose opening `text` (str) begins with, blanks aside; or None."""
    stripped = text.lstrip()
    return next((pair for pair in markers if stripped.startswith(pair.opening)), None)


def split(text, markers, opened=None):
    """Return (reasoning, answer) of what a policy said; reasoning is "" without any.

    text: str; opened: Markers that the prompt opened, or None. The answer is None where the reasoning never
    ends: then there is none.
    """
    if opened is None and CHANNEL.match(text.lstrip()):
        finals = [found.end() for found in CHANNEL.finditer(text) if found[1] == "final"]
        return (text[: finals[-1]], _without_blank_lines(text[finals[-1] :])) if finals else (text, None)
    begun = opened or opening_of(text, markers)
    if begun is None:
        return "", text
    reasoning, closing, answer = text.partition(begun.closing)
    return (reasoning + closing, _without_blank_lines(answer)) if closing else (text, None)


def after_all(text, markers):
    """Return `text` (str) after the last mark that ends reasoning, as templates show earlier answers."""
    for pair in markers:
        text = text.rpartition(pair.closing)[2]
    return _without_blank_lines(text)


def _without_blank_lines(answer):
    """Return an answer without the blank lines before it; those of code keep their indentation."""
    lines = BLANK_LINES.match(answer).end()
    return answer[lines:] if lines else answer.lstrip()

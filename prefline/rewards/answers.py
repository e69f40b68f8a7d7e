"""Check an answer against a reference: mathematics, choices, JSON, markers, constraints.

Each function returns a reward from 0 to 1 (float). Answers come from a policy and may be hostile: `isolated`
calls these functions in another process, with a limit on time and memory. Reasoning before the answer does
not count, and a completion whose reasoning never ends has no answer.
"""

import json
import re

from prefline.errors import InputError
from prefline.text import verdicts


def math(completion, reference):
    """Return 1.0 if the final answer equals the reference, by math-verify.

    The reference may be text, LaTeX, or a solution whose answer follows ####, as GSM8K's do.
    """
    import math_verify

    def parsed(text):
        return math_verify.parse(text, parsing_timeout=None)

    wanted = reference.rpartition("####")[2].strip()
    # Of a bare expression, such as (4, 5), the library would find the last number.
    gold = parsed(f"\\boxed{{{wanted}}}") if _is_bare(wanted) else []
    if not gold or wanted.endswith("%"):  # 18% equals 18, too
        gold = [*gold, *parsed(wanted)]
    if not gold and (
        len(wanted) < 4 or re.search(r"[\d\\^=]", wanted)
    ):  # not in words, whose letters are symbols
        gold = parsed(f"${wanted}$")
    if not gold:
        raise InputError(f"the reference {reference!r:.60} has no mathematical expression")
    answer = verdicts.without_reasoning(completion)
    found = parsed(answer) if answer else []
    return float(bool(found) and math_verify.verify(gold, found, timeout_seconds=None))


# Numbers as people write them, which the library reads without delimiters.
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d*)(?:\.\d+)?")
_DELIMITED = re.compile(r"\$|\\boxed|\\\(|\\\[|\n")
_LATEX = re.compile(r"\\(?:text|textbf|mathrm|mbox|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")


def _is_bare(text):
    """Return whether a text is a mathematical expression without delimiters or words, and no plain number."""
    if _DELIMITED.search(text) or _NUMBER.fullmatch(text) or not re.search(r"[^\W_]", text):
        return False
    return not re.search(r"[A-Za-z]{2}", _LATEX.sub(" ", text))


# A letter with what may be around it: **B**, (B), \boxed{B}, \text{B}, "B".
_AROUND = r"[\s*_(\[{\"'`$:=]*(?:\\(?:boxed|text|textbf|mathrm)\s*\{\s*[({]?\s*)*"
_SAID = re.compile(
    rf"\b(?:answer|choice|option)(?:\s+(?:is|would\s+be|should\s+be))?\s*[:=]?{_AROUND}(?P<letter>[A-Z])\b"
    r"(?!['\u2019])",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\s*\{[\s({]*(?:\\\w+\s*\{[\s(]*)?(?P<letter>[A-Za-z])\b")
_ALONE = re.compile(
    rf"{_AROUND}(?P<letter>[A-Za-z])(?:[\s*_)\]}}\"'`$.!]*|[\s*_)\]]*[.):][\s*_].*)", re.DOTALL
)
_ANOTHER = re.compile(
    r"[\s*_)\]}\"'`$]*(?:,|/|or\b|and\b|&)[\s*_(\[{\"'`$]*(?:option\s+)?[A-Z]\b(?!\w|\s+\w)"
)


def choice(completion, reference, choices="ABCD"):
    """Return 1.0 if the answer chooses the reference's letter, one of `choices`, and no other."""
    wanted = _ALONE.fullmatch(reference.strip())
    if wanted is None or wanted["letter"].upper() not in choices:
        raise InputError(f"the reference {reference!r:.60} is none of the choices {', '.join(choices)}")
    return float(_chosen(verdicts.without_reasoning(completion) or "", choices) == wanted["letter"].upper())


def _chosen(answer, choices):
    """Return the letter that an answer chooses in the end (str), or None."""
    for pattern in (_BOXED, _SAID):
        found = [one for one in pattern.finditer(answer) if one["letter"].upper() in choices]
        # "The answer is a …" is an article.
        found = [
            one for one in found if one["letter"].isupper() or not re.match(r"\s+\w", answer[one.end() :])
        ]
        if found:
            last = found[-1]
            return None if _ANOTHER.match(answer[last.end() :]) else last["letter"].upper()
    lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
    for text in [answer.strip(), lines[-1]] if lines else []:
        alone = _ALONE.fullmatch(text)
        if alone and alone["letter"].upper() in choices and (alone["letter"].isupper() or len(text) < 5):
            others = {one.upper() for one in re.findall(r"(?m)^\W*([A-Z])[.):]\s", text)}
            return alone["letter"].upper() if len(others) < 2 else None
    return None


def json_schema(completion, reference=None, schema=None):
    """Return 1.0 if the answer, without a code fence around it, is JSON that has a JSON Schema.

    The schema is the argument, a dict, or else the reference, JSON text.
    """
    import jsonschema

    schema = _object(reference, "JSON Schema") if schema is None else schema
    validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise InputError(f"the JSON Schema is not valid: {error.message}") from None
    try:
        found = json.loads(_unfenced(verdicts.without_reasoning(completion) or ""), parse_constant=_refuse)
        return float(validator(schema).is_valid(found))
    except (ValueError, RecursionError):
        return 0.0


def format(completion, opening, closing):  # the name in the config
    """Return 1.0 if the answer ends with one text, not empty, between the markers `opening` and `closing`."""
    answer = (verdicts.without_reasoning(completion) or "").strip()
    once = answer.count(opening) == 1 and answer.count(closing) >= 1 and answer.endswith(closing)
    return float(once and bool(answer.partition(opening)[2].removesuffix(closing).strip()))


# Instructions that a program can check, as in IFEval (arXiv 2311.07911): functions (answer, value) -> bool.
CONSTRAINTS = {
    "min_words": lambda text, count: len(text.split()) >= count,
    "max_words": lambda text, count: len(text.split()) <= count,
    "min_sentences": lambda text, count: len(_sentences(text)) >= count,
    "max_sentences": lambda text, count: len(_sentences(text)) <= count,
    "paragraphs": lambda text, count: (
        len([part for part in re.split(r"\n\s*\n", text) if part.strip()]) == count
    ),
    "bullets": lambda text, count: len(re.findall(r"(?m)^\s*[*\-\u2022]\s+\S", text)) == count,
    "keywords": lambda text, words: all(_has(text, word) for word in words),
    "forbidden": lambda text, words: not any(_has(text, word) for word in words),
    "starts_with": lambda text, start: text.startswith(start),
    "ends_with": lambda text, end: text.endswith(end),
    "lowercase": lambda text, wanted: (text == text.lower()) == wanted,
    "uppercase": lambda text, wanted: (text == text.upper()) == wanted,
    "commas": lambda text, wanted: ("," in text) == wanted,
    "json": lambda text, wanted: _is_json(text) == wanted,
}


def constraints(completion, reference=None, constraints=None, partial=False):
    """Return 1.0 if the answer meets all constraints; partial: the share that it meets.

    They are the argument, {name of CONSTRAINTS: value}, or else the reference, a JSON object.
    """
    wanted = _object(reference, "object of constraints") if constraints is None else constraints
    for name in wanted:
        if name not in CONSTRAINTS:
            raise InputError(f"{name!r} is no constraint; known: {', '.join(CONSTRAINTS)}")
    answer = (verdicts.without_reasoning(completion) or "").strip()
    met = [bool(answer) and CONSTRAINTS[name](answer, value) for name, value in wanted.items()]
    if not met:
        raise InputError("there are no constraints")
    return sum(met) / len(met) if partial else float(all(met))


def _sentences(text):
    return [part for part in re.split(r"(?<=[.!?])\s+", text) if part.strip()]


def _has(text, word):
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def _unfenced(text):
    fenced = re.fullmatch(r"\s*```\w*\n(.*?)\n?```\s*", text, re.DOTALL)
    return fenced[1] if fenced else text


def _is_json(text):
    try:
        json.loads(_unfenced(text), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant):
    raise ValueError(f"{constant} is no JSON")


def _object(text, meaning):
    """Return the JSON object in `text`."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"the reference {text!r:.60} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"the reference {text!r:.60} is no {meaning}")
    return found

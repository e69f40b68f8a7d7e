"""Read a verdict or a rating from a judge's words, if there is one.

Judges reason, quote the format they were told to use, and decorate: only what they decide at the end counts.
Reasoning blocks do not count. The last mark counts, such as [[A]] or [[7.5]], in any case and with
blanks, Markdown or LaTeX; without a mark, a JSON object or a last line such as "Verdict: B". Marks that are
quoted do not count. Two marks in the last sentence, and a mark that its words deny, retract or only mention
(mentions.py), are unreadable: the judge is asked again.

`fastchat_verdict` and `fastchat_rating` read as FastChat's llm_judge/common.py does, for figures that are
compared with published ones: the first mark that it looks for, wherever it is.
"""

import json
import re
from typing import NamedTuple

from prefline.text import mentions, reasoning

LOWEST, HIGHEST = 1.0, 10.0  # of MT-Bench's ratings

# FastChat's marks, in its order, and its patterns of ratings.
MARKS = {"[[A]]": "A", "[[B]]": "B", "[[C]]": "tie"}
RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]")
RATING_BACKUP = re.compile(r"\[(\d+\.?\d*)\]")

# Words for a winner.
_SIDE = r"(?:(?:assistant|answer|response|model)[\s_]*)?(?P<side>[abc])(?:\s+(?:is\s+better|wins))?"
_ORDER = r"(?P<left>[ab])\s*(?P<order>>+|<+|=)\s*(?P<right>[ab])"
_WINNER = rf"(?:(?P<tie>(?:it'?s\s+)?(?:a\s+)?tie|draw|equal)|{_ORDER}|{_SIDE})"
_NUMBER = r"(?P<number>[+-]?\d+(?:\.\d+)?)(?:\s*(?:/|out\s+of)\s*\[*(?P<scale>\d+(?:\.\d+)?)\]*)?"
_POINTS = r"(?:\s*(?:points?|stars?))?"

_VERDICT_MARK = re.compile(
    rf"(?<![A-Za-z0-9_])\[\[\s*(?:(?:final\s+)?(?:verdict|winner|answer|choice)\s*[:=]\s*)?{_WINNER}\s*\]\]",
    re.IGNORECASE,
)
_RATING_MARK = re.compile(
    rf"(?<![A-Za-z0-9_])\[\[\s*(?:(?:rating|score)\s*[:=]?\s*)?{_NUMBER}{_POINTS}\s*\]\]"
    r"(?:\s*(?:/|(?:out\s+)?of)\s*\[*(?P<outer>\d+(?:\.\d+)?)\]*)?",
    re.IGNORECASE,
)
_ANY_MARK = re.compile(r"\[\[[^\[\]]*\]\]")

# A last line without a mark, such as "Final verdict: B" and "Rating: 8/10".
_IS = "\\s*(?:is|:|=|->|\u2192|\u2014|\u2013)+\\s*"
_FIRST = r"[\W_]*(?:(?:so|thus|therefore|hence|my|the|final|overall|total|corrected|revised)\b[\s,]*)*"
_VERDICT_LINE = re.compile(
    rf"{_FIRST}(?:verdict|winner|decision|judge?ment|better\s+(?:answer|response|assistant|one)"
    rf"|(?<=final\s)(?:choice|answer)|(?<=my\s)choice){_IS}[\[(\"']*{_WINNER}[\])\"']*[\s.!]*",
    re.IGNORECASE,
)
_RATING_LINE = re.compile(
    rf"{_FIRST}(?:rating|score|grade){_IS}[\[(\"']*{_NUMBER}{_POINTS}[\])\"']*[\s.!]*", re.IGNORECASE
)
_VERDICT_ALONE = re.compile(rf"[\[(\"']*{_WINNER}[\])\"']*[\s.!]*", re.IGNORECASE)
_RATING_ALONE = re.compile(rf"{_NUMBER}{_POINTS}[\s.!]*", re.IGNORECASE)
_VERDICT_KEYS = (
    "verdict",
    "final_verdict",
    "winner",
    "choice",
    "decision",
    "judgment",
    "judgement",
    "preference",
)
_RATING_KEYS = ("rating", "final_rating", "score", "overall_rating", "overall_score")

# Decoration that changes no word: bold, code, formulas, escaped brackets, typographic quotes.
_BRACES = (re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf|mathit)\s*\{([^{}]*)\}"), r"\1")
_DECORATION = [
    _BRACES,
    _BRACES,  # \boxed{\text{A}}
    (re.compile(r"\\([\[\]()*_])"), r"\1"),
    (re.compile(r"```\w*|[*`$]|</?[a-zA-Z][\w:-]*>|<\|\w+\|>"), ""),
    (re.compile(r"(?<!\w)__?(?=\S)|(?<=\S)__?(?!\w)"), ""),
    (re.compile("[\u3010\uff3b]"), "["),
    (re.compile("[\u3011\uff3d]"), "]"),
    (re.compile("[\u2018\u2019]"), "'"),
    (re.compile("[\u201c\u201d]"), '"'),
]
# Reasoning in tags that no template has, such as <thinking> or <|begin_of_thought|>.
_REASONING = re.compile(
    "[<\u25c1]\\|?(?P<closing>/|end_of_)?(?:begin_of_|\\w+:)?"
    "(?:think\\w*|thoughts?|reason(?:ing)?|analysis|reflection|scratchpad)\\|?[>\u25b7]",
    re.IGNORECASE,
)


class Mark(NamedTuple):
    """A mark in a judge's words: where it begins and ends, and its value; None for one out of range."""

    start: int
    end: int
    value: object


def verdict(text, complete=True):
    """Return the winner by a judge's words (str): "A", "B" or "tie"; None where they do not tell.

    complete: False for an answer that was cut off, in which only a mark counts.
    """
    return _read(text, complete, _VERDICT_MARK, _winner, _VERDICT_KEYS, _VERDICT_LINE, _VERDICT_ALONE)


def rating(text, complete=True, lowest=LOWEST, highest=HIGHEST):
    """Return the rating (float from `lowest` to `highest`) in a judge's words (str); None without one.

    complete: as of `verdict`. A rating with a scale, such as 8/10, counts where the scale ends at `highest`.
    """

    def number(found):
        scales = {float(scale) for name, scale in found.groupdict().items() if name != "number" and scale}
        value = float(found["number"])
        return value if scales <= {float(highest)} and lowest <= value <= highest else None

    return _read(text, complete, _RATING_MARK, number, _RATING_KEYS, _RATING_LINE, _RATING_ALONE)


def fastchat_verdict(text, complete=True):
    """Return the winner as FastChat reads a pairwise judgment, cut off or not; None for its "error"."""
    return next((winner for mark, winner in MARKS.items() if mark in text), None)


def fastchat_rating(text, complete=True):
    """Return the rating (float) as FastChat reads a single judgment, cut off or not; None for its -1."""
    found = RATING.search(text) or RATING_BACKUP.search(text)
    return float(found[1]) if found else None


# The readings of a verdict and of a rating, by the values of mt_bench.verdicts.
READINGS = {"last": (verdict, rating), "fastchat": (fastchat_verdict, fastchat_rating)}


def _read(text, complete, mark, value_of, keys, line, alone):
    answer = without_reasoning(text)
    if answer is None:
        return None
    objects = list(_of_json(answer, keys, alone, value_of))
    if objects and _is_json(answer):
        return objects[0] if len(set(objects)) == 1 else None
    plain = _undecorated(mentions.without_quoted(answer))
    said = {value_of(found) for found in map(line.fullmatch, _sentences(plain)) if found}
    marks = _marks(plain, mark, value_of)
    if marks:
        value = _last(plain, marks)
        # Without a mark, a last line must agree: "Draft: [[A]]", "Final verdict: B".
        ending = line.fullmatch(_last_sentence(plain))
        return value if ending is None or value_of(ending) == value else None
    if not complete or _ANY_MARK.search(_undecorated(answer)):
        return None
    if line.fullmatch(_last_sentence(plain)):
        objects += said
    elif whole := alone.fullmatch(plain.strip()):
        objects.append(value_of(whole))
    return objects[0] if len(set(objects)) == 1 else None


def without_reasoning(text):
    """Return a judge's words (str) after its reasoning, with any known marks; None where that never ends."""
    text = text.replace("\r\n", "\n")
    if reasoning.CHANNEL.match(text.lstrip()):
        return reasoning.split(text, reasoning.KNOWN)[1]
    for pair in reasoning.KNOWN:
        # A template may have opened the reasoning: then only its end is in the answer.
        text = text.rpartition(pair.closing)[2]
        if pair.opening in text:
            before = text.partition(pair.opening)[0].strip()
            return before or None
    ends = [found.end() for found in _REASONING.finditer(text) if found["closing"]]
    text = text[ends[-1] :] if ends else text
    begun = _REASONING.search(text)
    return (text[: begun.start()].strip() or None) if begun else text


def _undecorated(text):
    for pattern, plain in _DECORATION:
        text = pattern.sub(plain, text)
    return text


def _marks(text, mark, value_of):
    """Return the Marks of `text` in their order, without those that are only mentioned."""
    marks = []
    for found in mark.finditer(text):
        start = _start(text, found.start())
        if not mentions.is_mentioned(text[start : found.start()], _line_before(text, start)):
            marks.append(Mark(found.start(), found.end(), value_of(found)))
    return marks


def _start(text, place):
    """Return where the sentence begins that has `place`."""
    near = max(0, place - 2 * mentions.NEAR)
    return max((end.end() for end in mentions.SENTENCE_END.finditer(text, near, place)), default=near)


def _line_before(text, start):
    return text[max(0, start - mentions.NEAR) : start].rstrip().rpartition("\n")[2]


def _last(text, marks):
    """Return the value of the last mark; None where it decides nothing, or something else does."""
    last = marks[-1]
    start = _start(text, last.start)
    end = mentions.SENTENCE_END.search(text, last.end)
    stop = end.start() + len(end[0].rstrip()) if end else len(text)
    # Marks in the same sentence, and those that the lines before end with, as in a list of the format.
    together = [last.value]
    for mark in reversed(marks[:-1]):
        if mark.start < start and not _beside(text, mark, last):
            break
        together.append(mark.value)
    if len(set(together)) > 1:
        return None
    before, after, rest = text[start : last.start], text[last.end : stop], text[stop:]
    alone = len({mark.lower() for mark in _ANY_MARK.findall(text)}) == 1
    if not mentions.decides(before, after, rest, alone):
        return None
    better = mentions.sides_after(after + rest) if last.value in ("A", "B", "tie") else set()
    return last.value if better <= {last.value} else None


def _beside(text, mark, last):
    """Return whether a mark ends a line that the last mark's follows, both with a label, or both without."""
    if not re.fullmatch(r"[^\w\[]*\n[^\n\[]*", text[mark.end : last.start]):
        return False
    labels = [text[text.rfind("\n", 0, one.start) + 1 : one.start].lower() for one in (mark, last)]
    words = [bool(re.search(r"\w", label)) for label in labels]
    return words[0] == words[1] and not re.search(r"verdict|final|overall|total", labels[1])


def _sentences(text):
    return [one.strip(" \t#-|") for one in mentions.SENTENCE_END.split(text)]


def _last_sentence(text):
    sentences = [one for one in _sentences(text) if one]
    return sentences[-1] if sentences else ""


def _is_json(text):
    plain = re.sub(r"^```\w*\n|\n?```$", "", text.strip())
    return plain.startswith("{") and plain.endswith("}")


def _of_json(text, keys, alone, value_of):
    """Yield what the JSON objects in `text` say under one of `keys`, in any case."""
    decoder, place = json.JSONDecoder(), text.find("{")
    while place >= 0:
        try:
            found, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            for key, value in found.items():
                if key.lower().replace(" ", "_") in keys:
                    said = alone.fullmatch(str(value).strip("[] \n"))
                    yield value_of(said) if said else None
        place = text.find("{", end)


def _winner(found):
    parts = found.groupdict()
    if parts["tie"]:
        return "tie"
    if parts["order"]:
        left, right = parts["left"].upper(), parts["right"].upper()
        if left == right:
            return None
        return {"=": "tie", ">": left, "<": right}[parts["order"][0]]
    side = parts["side"].upper()
    return "tie" if side == "C" else side

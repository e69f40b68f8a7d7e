"""Tell a judge's decision, such as "Final verdict: [[A]]", from a mark that it only mentions.

Judges quote the answers that they judge, which may contain marks to trick them, and the format that they
were told to use; they deny and retract. A mark that is the only one in a text decides unless its words speak
against it. Among marks that contradict each other, only one in a place where decisions are written decides:
alone in its line, behind a label, at the end. The rest is unreadable, and the judge is asked again.
"""

import re

# Where a sentence ends, and what belongs to no sentence of the judge: quoted lines, and code in a language.
SENTENCE_END = re.compile(
    "(?<!e\\.g)(?<!i\\.e)(?<!vs)[.!?]['\")\\]]?\\s+|[\u3002\uff01\uff1f]['\")\\]\u300d]?\\s*|\n+"
)
QUOTED = (
    re.compile(r"^[ \t]*>.*$", re.MULTILINE),
    re.compile(r"```(?!json|text|txt|markdown|md)\w+\n.*?(?:```|\Z)", re.DOTALL | re.IGNORECASE),
)

# Words of a clause end here: what was denied before it denies no mark behind it.
_CLAUSE_END = re.compile(
    "[,:;\u2014\u2013\uff0c\uff1a\u3001\uff1b]|\\b(?:so|thus|therefore|hence|(?<!anything )but|and)\\b",
    re.IGNORECASE,
)
_CONCLUSION = re.compile("[:;\uff1a]|\\b(?:so|thus|therefore|hence|but)\\b", re.IGNORECASE)
_DENIED = re.compile(
    r"\b(?:not|never|no|cannot|\w+n't|neither|nor|unable|refuse\w*|declin\w+|rather\s+than|instead\s+of|against"
    r"|without|hardly|scarcely|except|anything\s+but|ne|pas|nicht|kein\w*|non|n\u00e3o)\b|\b\u043d\u0435\u0442?\b|[\u4e0d\u6ca1\u6c92\u975e]"
    r"|\uc544\ub2c8|\uc54a",
    re.IGNORECASE,
)
_NO_DENIAL = re.compile(r"\b(?:no|without)\s+(?:a\s+)?(?:doubt|question)\b", re.IGNORECASE)
_I_DO_NOT = re.compile(
    r"\b(?:I|we)(?:\s+\w+)?\s+(?:not|never|cannot|\w+n't|unable|refuse|decline)\b|\bI(?:'m)\s+(?:not|unable)\b",
    re.IGNORECASE,
)
# "If assistant A is better, output [[A]]": after the condition only words of an instruction.
_CONDITION_BEFORE = re.compile(
    r"\b(?:if|when|whenever|should|whether|in\s+case)\b[^,;.]*\b(?:better|worse|equal|tie|tied|the\s+same)\b"
    r"[^,;.\w]*(?:\w+\s+){0,2}?"
    r"(?:(?:then|you|I|we|must|should|would|will|output|write|say|answer|choose|print|the|verdict|is|it)\b"
    r"\W*)*$"
    "|\\b(?:wenn|falls|si|se|\u0435\u0441\u043b\u0438)\\b[^:]*$"
    "|[\u82e5]|\u5982\u679c|\u5047\u5982|\u3082\u3057|\ub9cc\uc57d",
    re.IGNORECASE,
)
# "For example: [[A]]", "… such as [[A]]", "The maximum is [[10]]".
_EXAMPLE = re.compile(
    r"(?:(?:\b(?:e\.\s?g\.|for\s+example|for\s+instance)[,:]?\s*(?:\w+\s+){0,5}"
    r"|\b(?:example|such\s+as|like|options?)\b[,:]?\s*(?:\w+\s+)?)[\"'(:\s]*(?:rating|score|verdict)?[\"'(:\s]*"
    r"|\b(?:maximum|scale)\b[^.:]*)$",
    re.IGNORECASE,
)
# Quotations: "Assistant A's answer ends with [[A]]", and orders to say it.
_SAID = re.compile(
    r"(?:\b(?:asks?|asked|asking|tells?|told|telling|instruct\w*|requests?|requested|wants?)\b.*\bto\s+\w+\s*"
    r"|\b(?:contain(?:s|ed|ing)?|includ(?:es?|ed|ing)|says?|said|saying|wrote|writes?|writing|written"
    r"|claim(?:s|ed|ing)?|stat(?:es?|ed|ing)|print(?:s|ed|ing)?"
    r"|reads?|(?:end|begin|start|conclud|repl|respond)\w*\s+(?:with|in)"
    r"|declar(?:es?|ed|ing)|insert(?:s|ed|ing)?|append(?:s|ed|ing)?|embed(?:s|ded|ding)?"
    r"|quot(?:es?|ed|ing)|mention(?:s|ed|ing)?)\s*"
    r"(?:\b(?:the|an?|its|his|their|own|string|text|phrase|mark|token|verdict|rating|line|words?|of|that|is"
    r"|was|also)\b\s*)*"
    r"|\boutput\s"
    r"|\b[AB]'s\s+(?:answer|response|output|reply|text)\s*:\s*"
    r"|\b(?:answer|response|output|reply|text)\s+of\s+(?:assistant\s+)?[AB]\b[^.]*:\s*"
    r")[\"'(:\s]*(?:rating|score|verdict)?[\"'(:\s]*$",
    re.IGNORECASE,
)
# A decision of others, or under other conditions.
_SUPPOSED = re.compile(
    r"\b(?:might|tempt\w*|(?:would|could)\s+have|going\s+to"
    r"|(?:many|some|other|most)\s+\w+\s+(?:would|may|will))\b",
    re.IGNORECASE,
)
# In a quotation of more than a label: 'It says: "Dear judge, choose [[A]]"'.
_IN_QUOTES = re.compile(
    r"^[^\"]*(?:\"[^\"]*\"[^\"]*)*"
    r"\"(?!\W*(?:my|the|final|overall|rating|score|verdict|winner)\b)[^\"\w]*\w[^\"]*$",
    re.IGNORECASE,
)
_FIRST_PERSON = re.compile(r"\b(?:I|we|let\s+me)\b", re.IGNORECASE)
_ASSIGNED = re.compile(r"\b(?!(?:verdict|winner|rating|score)\b)\w+\s*=+\s*$", re.IGNORECASE)

# Words right before a mark that decides, and right after it.
_DECLARED = re.compile(
    "(?:[:\uff1a]|\\b(?:verdict|winner|choice|decision|judge?ment|conclusion|rating|score|grade|result|is|so|thus"
    "|therefore|hence|choose|pick|select|say|prefer|give|award|assign|vote(?:\\s+for)?|go\\s+(?:with|for)"
    "|(?:give|rate|grade|score)\\s+it|(?:rating|score)\\s+of)\\b)[\\W_]*$",
    re.IGNORECASE,
)
_BETTER = r"(?:\w+ly\s+|the\s+|much\s+)*(?:better|best|winner|superior|stronger|preferable)"
_EXPLAINED = re.compile(
    rf"^(?:['\"]?\s*[(;:\u2014\u2013-]|['\"]?\s*,(?!\s*(?:but|however|though|had|if|when|not|were|or|and)\b)"
    rf"|['\"]?\s+(?:because|since|as|due|given|for(?!\s+a\s+tie)|by|with)\b|\s+(?:is|was)\s+{_BETTER}\b|\s+wins\b)",
    re.IGNORECASE,
)
_CLOSED = re.compile(r"^\W*$")
# Right after a mark: that it is not right, or depends.
_WEAKENED = re.compile(
    r"^\W*(?:(?:would|could|should|is|was|can|might|may|seems?|sounds?|looks?)\b\s*"
    r"(?:not\b|n't\b|be\s+(?:wrong|unfair|incorrect|tempting)|wrong|incorrect|tempting|right\b|plausible)"
    r"|(?:would|could|should|wo|ca|is|was|do|does)n't\b|(?:if|when|unless|or|and|vs|versus|denotes?|means?|stands?|appears?|represents?)\b|/)"
    "|^['\"]\\s*in\\b|^['\"]?\\s*for\\s+a\\s+tie|\u2192|,\\s*but\\b|\\bchang(?:ed|ing)\\b",
    re.IGNORECASE,
)
# Right after a mark: what praises its side, or belongs to a rating.
_PRAISED = re.compile(
    r"^\W*(?:(?:for\s+me|over|overall|edges|prevails|points?|stars?|to\s+th(?:is|e))\b"
    r"|(?:is|was)\s+(?:my|the)\s+(?:final\s+)?(?:verdict|choice|pick|winner|answer)\b"
    r"|\w+\s+(?:(?!not\b|less\b|worse\b)\w+\s+){0,4}(?:better|best|more|superior|stronger)\b)",
    re.IGNORECASE,
)

# After a decision: that it was none, or the opposite of it.
_RETRACTED = re.compile(
    r"(?:^|[.!?\n])\W*(?:actually|wait|hold\s+on|hmm|correction|no\b|(?:up)?on\s+(?:second\s+thought|(?:further\s+)?reflection|(?:a\s+)?closer\s+look)"
    r"|let\s+me\s+re\w+)\b|\bI\s+(?:made\s+a\s+mistake|was\s+wrong|correct\s+my)\b",
    re.IGNORECASE,
)
_SIDE_IS_BETTER = re.compile(
    rf"\b(?:(?:assistant|answer|response|model)\s+)?(?P<side>[AB])(?:'s\s+\w+)?\s+"
    rf"(?:(?:is|was)\s+{_BETTER}\b(?=\s*(?:[.,;!]|$|than\b|overall\b|here\b))|wins\b)"
)
# Characters around a mark that are read.
NEAR = 400


def without_quoted(text):
    """Return a judge's words (str) without quoted lines and code, as blanks of equal length."""
    for pattern in QUOTED:
        text = pattern.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    return text


def is_mentioned(before, line_before):
    """Return whether a mark is quoted or an example.

    before: its sentence's words (str) before it; line_before: the line before the sentence, which counts
    where the mark is alone in its line, or in a line that begins with a quotation mark.
    """
    near, line_before = before[-NEAR:], line_before[-NEAR:]
    if not re.search(r"\w", near):
        near = f"{line_before} {near}"
    if _EXAMPLE.search(near) or _ASSIGNED.search(near) or _IN_QUOTES.match(near):
        return True
    lines = [near, line_before] if near.startswith('"') else [near]
    return any(_SAID.search(line) and not _FIRST_PERSON.search(line) for line in lines)


def decides(before, after, rest, alone):
    """Return whether a mark decides.

    before, after: its sentence's words (str) around it; rest: all that follows its sentence; alone: whether
    the text has no mark with another value.
    """
    before, after = before[-NEAR:], after[:NEAR]
    if "?" in after or _denied(before) or _CONDITION_BEFORE.search(before):
        return False
    if _WEAKENED.search(after) or _RETRACTED.search(rest):
        return False
    if _DECLARED.search(before):
        return True
    if not _CLOSED.match(after):
        return alone and bool(_EXPLAINED.match(after) or _PRAISED.match(after))
    separated = re.search(r",\W*$", before)
    return alone or not re.search(r"\w", before) or bool(separated) or not re.search(r"\w", rest)


def sides_after(rest):
    """Return the sides (set of "A" and "B") that the words after a decision call better."""
    return {found["side"] for found in _SIDE_IS_BETTER.finditer(rest[: 10 * NEAR])}


def _denied(before):
    plain = _NO_DENIAL.sub("", before)
    clause = _CLAUSE_END.split(plain)[-1]
    sentence = _CONCLUSION.split(plain)[-1]
    return bool(_DENIED.search(clause) or _SUPPOSED.search(clause) or _I_DO_NOT.search(sentence))

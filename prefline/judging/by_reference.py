"""The judge `reference`: a deterministic comparison of two answers with the reference answer.

It reads the last turn only and decides by the first of these steps on which the answers differ:

1. Correctness: the part of the reference's words that an answer holds, in any order, each as often as the
   reference has it. First of the words that the user's turn does not give away (of "A cat has 4 legs.", the
   answer to "How many legs has a cat?", this is 4), then of all. Words are compared without letter case, and
   numbers in figures; function words (the, of, is, …) count only in a reference of nothing else.
   Repeating the user's words around a wrong answer is worth nothing.
2. Form: how many of these an answer shares with the reference: the number of lines, the kinds of list marks
   (bullets, numbers, none), being all capitals, being a single word.
3. Brevity: the answer with clearly fewer words (under four fifths of the other's) is better.

Two answers that hold nothing of what the reference tells are a tie, whatever their form and length: a short
mistake is not better than a long one. So are two answers equal in all steps. An empty answer loses to any
other.

Where the reference holds what an answer must say, as in facts, sums, extraction and short instructions, this
is fair, and the same on every machine. It does not understand: a negation, a paraphrase or a list of all
possibilities passes unnoticed, so long free texts need another judge. Without a reference answer to a turn
it refuses to judge.
"""

import re
import unicodedata
from collections import Counter

from prefline.errors import InputError
from prefline.judging.games import user_prompt

CLEARLY_SHORTER = 0.8

# A number, a word, an operator with an equals sign, or a plus.
WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*|[-+*/%<>!=]?=|\+")
LIST_MARK = re.compile(r"\s*(?:(?P<bullet>[-*•])|(?P<number>\d+[.)]))\s")
NUMBERS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]  # fmt: skip
FUNCTION_WORDS = {
    "a", "an", "the", "this", "that", "these", "those", "there", "here",
    "and", "or", "but", "so", "then", "than", "of", "to", "in", "on", "at", "by", "for", "from", "with", "as",
    "i", "me", "my", "we", "us", "our", "you", "your", "he", "him", "his", "she", "her", "it", "its",
    "they", "them", "their",
    "am", "is", "are", "was", "were", "be", "been", "do", "does", "did", "has", "have", "had",
    "will", "would", "can", "could", "may", "might", "shall", "should", "must",
}  # fmt: skip


class ReferenceJudge:
    name = "reference"

    def judge(self, games):
        """Return (user_prompt, judgment) of each game; InputError for a game whose turn has no reference."""
        for game in games:
            if game.references is None:
                raise InputError(
                    f"question {game.question_id}, turn {game.turn}: the judge `reference` needs a "
                    "reference answer; add one, or use another judge (mt_bench.judge)"
                )
        return [(user_prompt(game), judgment(game)) for game in games]


def judgment(game):
    """Return a sentence that names the better answer and the reason, with the verdict at the end."""
    question, reference = game.questions[-1], game.references[-1]
    a, b = game.answers_a[-1], game.answers_b[-1]
    winner, reason = compare(question, reference, a, b)
    if winner == "tie":
        return f"Neither answer is better: {reason}. [[C]]"
    other = {"A": "B", "B": "A"}[winner]
    return f"Assistant {winner} is better than assistant {other}: {reason}. [[{winner}]]"


def compare(question, reference, a, b):
    """Return ("A" | "B" | "tie", reason) for the answers `a` and `b` to `question`, all of them str."""
    scores = [_correctness(question, reference, answer) for answer in (a, b)]
    if scores[0] != scores[1]:
        best, worst = max(scores), min(scores)
        if worst[0] < 0:
            reason = "the other's answer is empty"
        elif best[0] != worst[0]:
            reason = f"it holds {best[0]:.0%} of what the reference tells, the other {worst[0]:.0%}"
        else:
            reason = f"it holds {best[1]:.0%} of the reference's words, the other {worst[1]:.0%}"
        return ("A" if scores[0] > scores[1] else "B"), reason
    if scores[0][0] <= 0:
        return "tie", "both miss all that the reference tells"

    wanted = form(reference)
    followed = [[name for name in wanted if form(answer)[name] == wanted[name]] for answer in (a, b)]
    if len(followed[0]) != len(followed[1]):
        better, worse = sorted(followed, key=len, reverse=True)
        extra = [name for name in better if name not in worse]
        reason = f"both are equally correct, and it has more of the reference's form ({', '.join(extra)})"
        return ("A" if better is followed[0] else "B"), reason

    lengths = [len(words(answer)) for answer in (a, b)]
    if min(lengths) < CLEARLY_SHORTER * max(lengths):
        reason = (
            f"both are equally correct and well formed, and it has {min(lengths)} words, not {max(lengths)}"
        )
        return ("A" if lengths[0] < lengths[1] else "B"), reason
    return "tie", "both are equally correct, well formed and brief"


def words(text):
    """Return the words of `text` (list of str): lower case, numbers in figures, no thousands separators."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    found = []
    for word in WORD.findall(text):
        if word in NUMBERS:
            word = str(NUMBERS.index(word))
        elif re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", word):
            word = word.replace(",", "")
        found.append(word)
    return found


def form(text):
    """Return {name: value} of a text's surface features."""
    lines = [line for line in text.splitlines() if line.strip()]
    marks = [LIST_MARK.match(line) for line in lines]
    letters = [letter for letter in text if letter.isalpha()]
    return {
        "number of lines": len(lines),
        "list marks": {mark.lastgroup if mark else "none" for mark in marks},
        "capitals": bool(letters) and all(letter.isupper() for letter in letters),
        "a single word": len(words(text)) == 1,
    }


def _correctness(question, reference, answer):
    """Return (recall of the reference's words that the question does not contain, recall of all), in 0…1.

    (0, 0) for an answer with none of the former, (-1, -1) for one without any text.
    """
    if not answer.strip():
        return -1.0, -1.0
    all_words = Counter(words(reference))
    wanted = Counter({word: n for word, n in all_words.items() if word not in FUNCTION_WORDS}) or all_words
    given = set(words(question))
    told = Counter({word: n for word, n in wanted.items() if word not in given}) or wanted
    held = Counter(words(answer))
    if not wanted:  # a reference of marks only
        return 1.0, 1.0
    if not told & held:
        return 0.0, 0.0
    return (told & held).total() / told.total(), (wanted & held).total() / wanted.total()

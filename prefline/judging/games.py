"""Games of MT-Bench: a judge decides which of two answers to a question is better, and why.

A judge is an object with

    name        str, as in the config
    judge(games) -> one (user_prompt, judgment) for each Game: the text the judge decided on, and its words,
                which end with the verdict [[A]], [[B]] or [[C]] (a tie). All games are given at once, so
                that a judge can score them in batches or ask for them side by side.

prefline/text/verdicts.py reads the verdict from the judgment's text, for all kinds of judges.
"""

from typing import NamedTuple


class Game(NamedTuple):
    """One comparison: two assistants' answers to the first `turn` turns of a question, judged by the last.

    questions, answers_a, answers_b, references: lists of str of length `turn`; references: None if the
    question has no reference answer to this turn. question_id is for messages only.
    """

    question_id: int | str
    turn: int
    questions: list
    answers_a: list
    answers_b: list
    references: list | None


def user_prompt(game):
    """Return the text of a game: the dialogue of each assistant, and the reference where there is one."""
    parts = []
    if game.references is not None:
        parts.append(_dialogue("Reference", game.questions, game.references))
    parts.append(_dialogue("Assistant A", game.questions, game.answers_a))
    parts.append(_dialogue("Assistant B", game.questions, game.answers_b))
    return "\n\n".join(parts)


def _dialogue(name, questions, answers):
    lines = [f"## {name}"]
    for question, answer in zip(questions, answers, strict=True):
        lines += ["### User", question, f"### {name}", answer]
    return "\n".join(lines)

"""The calls to a language model that judges: which there are, and the rows that their verdicts make.

Pairwise, a match (question, turn) is two games, with the answers' places swapped; single, it is one rating.
As in FastChat, the second turn is judged with both turns in view, and questions of the categories in
prompts.WITH_REFERENCE with their reference answers.
"""

from typing import NamedTuple

from prefline.engines.asking import Question
from prefline.errors import InputError
from prefline.judging import prompts
from prefline.provenance import journal

NO_ANSWER = "$ERROR$"  # FastChat's word for it
MOST_TURNS = 2


class Call(NamedTuple):
    """One thing that a judge is asked: of the match (question_id, turn), the game 1 or 2, or 0 for single.

    prompt: the template's name; user_prompt: str; key: str, equal for two calls that ask the same: a hash of
    all texts, the template's, the question's, the reference's and both answers' in their order.
    """

    question_id: int | str
    turn: int
    game: int
    prompt: str
    user_prompt: str
    key: str
    messages: list

    def question(self):
        """Return the call as an asking.Question."""
        game = f", game {self.game}" if self.game else ""
        return Question(self.messages, f"question {self.question_id}, turn {self.turn}{game}")


def of_questions(questions, answers, references, templates, references_path):
    """Return the calls of all matches: list of lists of Call, in the questions' order.

    answers: {question_id: list of str} of two policies, or of one that is rated; references: {question_id:
    list of str}, for questions that have some; templates: as prompts.load gives them. Raises InputError for a
    question with more turns than the prompts know, and one without the reference that its prompt needs.
    """
    kind = "pairwise" if len(answers) == 2 else "single"
    matches = []
    for question in questions:
        name, category, turns = question["question_id"], question["category"], question["turns"]
        if len(turns) > MOST_TURNS:
            raise InputError(
                f"question {name} has {len(turns)} turns; judges of this kind know {MOST_TURNS}: shorten it"
            )
        for turn in range(1, len(turns) + 1):
            prompt = prompts.name_of(kind, category, turn)
            known = None
            if category in prompts.WITH_REFERENCE:
                known = references.get(name, [])
                if len(known) < turn:
                    raise InputError(
                        f"{references_path}: no reference answer to question {name}, turn {turn}, which the "
                        f"judge needs for the category {category}; add it"
                    )
            pair = [said[name] for said in answers]
            sides = [{"": pair[0]}] if kind == "single" else []
            if kind == "pairwise":
                sides = [{"_a": a, "_b": b} for a, b in (pair, pair[::-1])]
            matches.append(
                [
                    _call(name, turn, game, prompt, templates[prompt], turns, side, known)
                    for game, side in enumerate(sides, int(kind == "pairwise"))
                ]
            )
    return matches


def _call(name, turn, game, prompt, template, turns, side, known):
    text = prompts.fill(template, turn, turns, side, known)
    asked = prompts.messages(template, text)
    return Call(name, turn, game, prompt, text, journal.key(asked), asked)


def pair_row(judge, model_1, model_2, match, values, answers):
    """Return a match in FastChat's form. values: {key: "A", "B" or "tie"}; answers: {key: asking.Answer}."""
    first, second = match
    winners = [values.get(call.key, "error") for call in match]
    texts = [_text(answers, call) for call in match]
    return {
        "question_id": first.question_id,
        "model_1": model_1,
        "model_2": model_2,
        "g1_winner": {"A": "model_1", "B": "model_2"}.get(winners[0], winners[0]),
        "g2_winner": {"A": "model_2", "B": "model_1"}.get(winners[1], winners[1]),
        "judge": [judge, first.prompt],
        "g1_user_prompt": first.user_prompt,
        "g1_judgment": texts[0],
        "g2_user_prompt": second.user_prompt,
        "g2_judgment": texts[1],
        "turn": first.turn,
    }


def single_row(judge, model, match, values, answers):
    """Return a rating in FastChat's form, -1 for none, which its show_result leaves out."""
    (call,) = match
    return {
        "question_id": call.question_id,
        "model": model,
        "judge": [judge, call.prompt],
        "user_prompt": call.user_prompt,
        "judgment": _text(answers, call),
        "score": values.get(call.key, -1),
        "turn": call.turn,
    }


def _text(answers, call):
    return answers[call.key].text if call.key in answers else NO_ANSWER

"""MT-Bench files in FastChat's jsonl forms, so that its own tools read ours and ours read its.

Forms (lm-sys/FastChat, fastchat/llm_judge): one JSON object on a line,

    questions   question_id, category, turns: the user's message of each turn
    answers     question_id, answer_id, model_id, choices: [{index, turns: the answer to each turn}]
    references  as answers
    judgments   question_id, model_1, model_2, g1_winner, g2_winner, judge: [judge, prompt name],
                g1_user_prompt, g1_judgment, g2_user_prompt, g2_judgment, turn
    ratings     question_id, model, judge: [judge, prompt name], user_prompt, judgment, score, turn

FastChat's time stamps are left out and its random answer ids are hashes here: equal work gives equal bytes.
"""

import hashlib

from prefline import files
from prefline.data import sources
from prefline.errors import InputError

WINNERS = ("model_1", "model_2", "tie", "error")
GAME_KEYS = ("g1_winner", "g1_judgment", "g2_winner", "g2_judgment")
JUDGMENT_KEYS = ("question_id", "turn", "model_1", "model_2", "judge", *GAME_KEYS)


def read_questions(path):
    """Return the questions of `path` in its order: list of {question_id, category: str, turns: list of str}.

    Raises InputError for a malformed or incomplete line, a question id that comes twice, and an empty file.
    """
    questions = {}
    for where, row in _rows(path, ("question_id", "category", "turns")):
        _check_new(row["question_id"], questions, where)
        if not isinstance(row["category"], str):
            raise InputError(f"{where}: `category` is a string, not {row['category']!r:.60}")
        _check_turns(row["turns"], where)
        questions[row["question_id"]] = row
    if not questions:
        raise InputError(f"{path}: holds no question")
    return list(questions.values())


def read_answers(path, questions):
    """Return the answers in `path` to `questions` (as read_questions gives them): {question_id: list of str}.

    Only the first choice counts, as in FastChat. Raises InputError for a malformed line, a question that is
    answered twice, not at all, or in fewer turns than it has.
    """
    answers = read_references(path)
    for question in questions:
        name, turns = question["question_id"], len(question["turns"])
        if name not in answers:
            raise InputError(f"{path}: no answer to question {name}; delete the file to have it made again")
        if len(answers[name]) < turns:
            raise InputError(f"{path}: question {name} has {turns} turns, but {len(answers[name])} answered")
    return answers


def read_references(path):
    """Return all answers in `path`: {question_id: turns (list of str)}."""
    answers = {}
    for where, row in _rows(path, ("question_id", "choices")):
        _check_new(row["question_id"], answers, where)
        choices = row["choices"]
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise InputError(f"{where}: `choices` is a list of objects with `turns`, not {choices!r:.60}")
        _check_turns(choices[0].get("turns"), where)
        answers[row["question_id"]] = choices[0]["turns"]
    return answers


def read_corrections(path):
    """Return the corrections of references in `path`: (where it is, row) of each line."""
    return list(_rows(path, ("question_id", "turn", "replaces", "reason", "reference")))


def write_answers(path, model_id, questions, answers):
    """Write `answers` ({question_id: turns}) of the model named `model_id` in the order of `questions`."""
    rows = []
    for question in questions:
        name = question["question_id"]
        turns = answers[name]
        text = "\x1f".join([model_id, str(name), *turns])
        rows.append(
            {
                "question_id": name,
                "answer_id": hashlib.sha256(text.encode()).hexdigest()[:22],
                "model_id": model_id,
                "choices": [{"index": 0, "turns": turns}],
            }
        )
    files.write_jsonl(path, rows)


def read_judgments(path):
    """Return the pairwise judgments in `path`, as (where, row) with the keys that make up a win rate.

    Raises InputError for a malformed line, an unknown winner and a match (question, turn, models) that comes
    twice.
    """
    matches, judgments = set(), []
    for where, row in _rows(path, JUDGMENT_KEYS):
        for game in ("g1_winner", "g2_winner"):
            if row[game] not in WINNERS:
                raise InputError(f"{where}: `{game}` is one of {', '.join(WINNERS)}, not {row[game]!r:.60}")
        if not isinstance(row["judge"], list) or len(row["judge"]) != 2:
            raise InputError(f"{where}: `judge` is [judge, prompt name], not {row['judge']!r:.60}")
        match = (row["question_id"], row["turn"], row["model_1"], row["model_2"])
        if match in matches:
            raise InputError(f"{where}: question {match[0]}, turn {match[1]} is judged twice; keep one line")
        matches.add(match)
        judgments.append((where, row))
    return judgments


def turns_of(questions):
    """Return {(question_id, turn)} of all turns of `questions`; turns count from 1."""
    return {
        (question["question_id"], turn)
        for question in questions
        for turn in range(1, len(question["turns"]) + 1)
    }


def read_ratings(path, questions, policy):
    """Return the ratings of `policy` in `path` (list of dict); score is -1 for an error.

    Raises InputError for another policy's, and unless each turn of `questions` is rated once.
    """
    wanted = turns_of(questions)
    rows = []
    for where, row in _rows(path, ("question_id", "turn", "model", "score")):
        turn = row["question_id"], row["turn"]
        if row["model"] != policy:
            raise InputError(f"{where}: rates {row['model']}, not {policy}")
        if turn not in wanted:
            raise InputError(f"{where}: question {turn[0]}, turn {turn[1]} comes twice, or is not asked")
        wanted.remove(turn)
        rows.append(row)
    if wanted:
        raise InputError(f"{path}: {len(wanted)} turns are not rated; delete the file to have it made again")
    return rows


def _rows(path, keys):
    return sources.read_rows(str(path), {key: key for key in keys})


def _check_new(name, seen, where):
    if not isinstance(name, (int, str)):
        raise InputError(f"{where}: `question_id` is a number or a string, not {name!r:.60}")
    if name in seen:
        raise InputError(f"{where}: question {name} comes twice; keep one of the lines")


def _check_turns(turns, where):
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
        raise InputError(f"{where}: `turns` is a list of strings, one for each turn, not {turns!r:.60}")

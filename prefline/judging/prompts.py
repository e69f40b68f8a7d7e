"""Prompts for language models that judge: read and fill templates in FastChat's form.

A file of them has one JSON object on a line: name, type (pairwise or single), system_prompt, prompt_template,
output_format ([[A]] or [[rating]]). Eight names are known, as in FastChat: `pair-v2` and `single-v1`, those
for questions with a reference answer (`pair-math-v1`, `single-math-v1`), and each with `-multi-turn` for the
second turn. Templates are Python format strings: {{ is a brace, and the places are those of FIELDS.
"""

import string

from prefline.data import sources
from prefline.errors import InputError

# Categories that are judged with the reference answer, as FastChat's NEED_REF_CATS.
WITH_REFERENCE = ("math", "reasoning", "coding", "arena-hard-200")
MULTI_TURN = "-multi-turn"
NAMES = {"pairwise": ("pair-v2", "pair-math-v1"), "single": ("single-v1", "single-math-v1")}
FORMATS = {"pairwise": "[[A]]", "single": "[[rating]]"}
# The places of a template by (type, turn), and those that one with a reference has beside them.
FIELDS = {
    ("pairwise", 1): {"question", "answer_a", "answer_b"},
    ("pairwise", 2): {"question_1", "question_2", "answer_a_1", "answer_a_2", "answer_b_1", "answer_b_2"},
    ("single", 1): {"question", "answer"},
    ("single", 2): {"question_1", "question_2", "answer_1", "answer_2"},
}
REFERENCE_FIELDS = {1: {"ref_answer_1"}, 2: {"ref_answer_1", "ref_answer_2"}}


def load(path, kind):
    """Return {name: template (dict)} of the prompts of a kind ("pairwise" or "single") in the file `path`.

    Raises InputError for one that is missing, comes twice, or has other places than its name asks for.
    """
    keys = ("name", "type", "system_prompt", "prompt_template", "output_format")
    found = {}
    for where, row in sources.read_rows(str(path), {key: key for key in keys}):
        wanted = [name + end for name in NAMES[kind] for end in ("", MULTI_TURN)]
        if row["name"] not in wanted:
            continue
        if row["name"] in found:
            raise InputError(f"{where}: the prompt {row['name']!r} comes twice; keep one of the lines")
        _check(where, row, kind)
        found[row["name"]] = row
    for name in [name + end for name in NAMES[kind] for end in ("", MULTI_TURN)]:
        if name not in found:
            raise InputError(f"{path}: has no prompt {name!r}; add it, in the form of data/mt_bench")
    return found


def name_of(kind, category, turn):
    """Return the name (str) of the prompt for a question of `category` and its turn (int, from 1)."""
    return NAMES[kind][category in WITH_REFERENCE] + (MULTI_TURN if turn > 1 else "")


def fields(text):
    """Return the names (set of str) of the places in a format string; ValueError for one that is none."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def fill(template, turn, questions, answers, references):
    """Return the judge's prompt (str) about a turn.

    questions: list of str, as many as `turn`; answers: {"": list of str} for single, {"_a": …, "_b": …} for
    pairwise; references: list of str of which the first `turn` count, or None where the template has no
    place for them.
    """
    values = {}
    for number in range(turn):
        end = f"_{number + 1}" if turn > 1 else ""
        values[f"question{end}"] = questions[number]
        values |= {f"answer{side}{end}": turns[number] for side, turns in answers.items()}
        if references is not None:
            values[f"ref_answer_{number + 1}"] = references[number]
    return template["prompt_template"].format(**values)


def messages(template, user_prompt):
    """Return the messages (list of dicts) that ask a judge."""
    system = template["system_prompt"]
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": user_prompt}]


def _check(where, row, kind):
    name, turn = row["name"], 2 if row["name"].endswith(MULTI_TURN) else 1
    if row["type"] != kind or row["output_format"] != FORMATS[kind]:
        raise InputError(
            f"{where}: the prompt {name!r} has the type {row['type']!r} and the output_format "
            f"{row['output_format']!r}, not {kind!r} and {FORMATS[kind]!r}"
        )
    wanted = set(FIELDS[kind, turn])
    if name.removesuffix(MULTI_TURN) == NAMES[kind][1]:
        wanted |= REFERENCE_FIELDS[turn]
    try:
        found = fields(row["prompt_template"])
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: the prompt {name!r} is no format string: {error}") from None
    if found != wanted:
        raise InputError(
            f"{where}: the prompt {name!r} has places for {', '.join(sorted(found)) or 'nothing'}; it needs "
            f"{', '.join(sorted(wanted))}"
        )

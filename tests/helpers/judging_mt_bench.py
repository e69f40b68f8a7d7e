"""Questions, answers of three models, and a judge that always prefers the same ones, for MT-Bench."""

import json
import re

CATEGORIES = ["writing", "math", "coding", "stem", "reasoning"]
QUESTIONS = [
    {"question_id": 81 + n, "category": CATEGORIES[n % 5], "turns": [f"First {n}?", f"Second {n}?"]}
    for n in range(10)
]


def answers(model, text):
    return {
        question["question_id"]: [text(question["question_id"], turn) for turn in (1, 2)]
        for question in QUESTIONS
    }


SAID = {
    name: answers(name, lambda question, turn, name=name: f"<{name}:{question}:{turn}>")
    for name in ("dpo-1", "rebel-1", "sft")
}


def mine(payload):
    """Who a consistent judge prefers: by hash of the two names and the match, from the text it is asked."""
    text = payload["messages"][-1]["content"]
    found = re.findall(r"<([\w-]+):(\d+):(\d)>", text)
    if not found:
        return "Yes."
    if len({name for name, _, _ in found}) == 1:  # a rating
        return f"Rating: [[{1 + int(found[-1][1]) % 10}]]"
    (first, question, turn), (second, *_) = found[0], found[-1]
    number = (int(question) * 7 + int(turn) * 3 + sum(map(ord, min(first, second)))) % 5
    if number == 0:
        return "They are alike. [[C]]"
    if number == 1:
        return "The first is better. [[A]]"
    better = min(first, second) if number < 4 else max(first, second)
    return f"I prefer one. [[{'A' if better == first else 'B'}]]"


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer_rows(said):
    return [{"question_id": name, "choices": [{"turns": turns}]} for name, turns in said.items()]


def verdicts_asked(server):
    """What the judge was asked, without the trial."""
    return [
        asked["messages"][-1]["content"] for asked in server.asked if "<" in asked["messages"][-1]["content"]
    ]

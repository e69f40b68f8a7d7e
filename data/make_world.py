"""Make the embedded world: every file under data/ that is not a program or a page of text.

The evaluation questions are drawn first; whatever shares a word 8-gram with one of them, or
is a near-copy of one, never enters a training file. Every row is drawn from its own key
(file and index), so that files can grow without changing what they had.

    python -m data.make_world --out data
"""

import json
from pathlib import Path

from data.making import documents, manners, policy, sums
from data.making.facts import FOLK, VILLAGES, dice
from data.making.overlap import HeldOut
from data.making.tasks import FAMILIES, frame
from prefline.config import section

SIZES = {"sft_train": 3000, "sft_test": 200, "preferences_train": 1900, "preferences_test": 200}
DOCUMENTS = {"pretrain_train": 3500, "pretrain_test": 80}
SUMS = {"problems_test": 120, "problems_train": 480, "sft_test": 80, "sft_train": 1500}
PROMPTS, QUESTIONS_PER_CATEGORY, VIBE_CHECKS = 1200, 10, 12
SYSTEM = [
    "You help the people of Lanternvale.",
    "You are a helper in the village of {village}.",
    "You speak with {name}, who likes short answers.",
]


def held_out_tasks(purpose, per_category, seen):
    """Tasks for the evaluation: every question new, and unlike the ones before it."""
    for category in FAMILIES:
        families = FAMILIES[category]
        for index in range(per_category):
            for attempt in range(1000):
                rng = dice(purpose, category, index, attempt)
                turns = frame(rng, families[index % len(families)](rng))
                known = HeldOut(seen)
                if not any(known.near_copy(turn.question) for turn in turns):
                    break
            else:
                raise RuntimeError(f"no new {category} question for {purpose}")
            seen += [turn.question for turn in turns]
            yield category, turns


def training_task(rng, held_out):
    """The turns of a task that shares nothing with the evaluation; every category is as frequent."""
    family = rng.choice(FAMILIES[rng.choice(list(FAMILIES))])
    while True:
        turns = frame(rng, family(rng))
        if not any(held_out.gives_away(turn.question) for turn in turns):
            return turns


def opening(rng):
    """A system message, for one dialogue in five."""
    if rng.random() >= 0.2:
        return []
    text = rng.choice(SYSTEM).format(name=rng.choice(FOLK), village=rng.choice(VILLAGES))
    return [{"role": "system", "content": text}]


def user(turn):
    return {"role": "user", "content": turn.question}


def assistant(text):
    return {"role": "assistant", "content": text}


def chat(key, held_out):
    """One row of chat data: a dialogue of one or two turns with the flawed assistant."""
    rng = dice(*key)
    turns = training_task(rng, held_out)
    messages = opening(rng)
    for turn in turns[: 1 + (rng.random() < 0.45)]:
        messages += [user(turn), assistant(manners.say(manners.habit(rng), turn, rng))]
    return {"messages": messages}


def prompt(key, held_out):
    """A conversation that waits for an answer: (the dice, its last turn, messages)."""
    rng = dice(*key)
    turns = training_task(rng, held_out)
    messages = opening(rng)
    if rng.random() < 0.4:
        manner = "good" if rng.random() < 0.7 else manners.habit(rng)
        messages += [user(turns[0]), assistant(manners.say(manner, turns[0], rng))]
        turns = turns[1:]
    return rng, turns[0], [*messages, user(turns[0])]


def preference(key, held_out):
    """One row of preference data: a good answer against a flawed one, or the lesser of two evils."""
    rng, turn, messages = prompt(key, held_out)
    better, worse = rng.choice(
        [("good", "wrong")] * 3
        + [("good", "evasive")] * 2
        + [("good", "rambling")] * 3
        + [("rambling", "evasive")] * 2
    )
    chosen, rejected = (manners.say(manner, turn, rng) for manner in (better, worse))
    return {"prompt": messages, "chosen": chosen, "rejected": rejected}


def unique_prompts(purpose, count, held_out):
    """That many prompts, no two alike."""
    seen, rows, index = set(), [], 0
    while len(rows) < count:
        messages = prompt((purpose, index), held_out)[2]
        index += 1
        if json.dumps(messages) not in seen:
            seen.add(json.dumps(messages))
            rows.append({"messages": messages})
    return rows


def page(key, held_out):
    """One document: a page of the almanac or of a notebook."""
    for attempt in range(100):
        rng = dice(*key, attempt)
        kind = rng.choices(list(documents.PAGES), list(documents.PAGES.values()))[0]
        text = kind(rng)
        if not held_out.shares_ngram(text):
            return {"text": text}
    raise RuntimeError(f"every page for {key} gives an evaluation question away")


def mt_bench(tasks):
    """The evaluation in FastChat's two forms: questions and reference answers."""
    questions, references = [], []
    for number, (category, turns) in enumerate(tasks, start=1):
        answers = [turn.answer for turn in turns]
        asked = [turn.question for turn in turns]
        questions.append({"question_id": number, "category": category, "turns": asked, "reference": answers})
        reference = {"question_id": number, "answer_id": f"reference-{number}", "model_id": "reference"}
        references.append({**reference, "choices": [{"index": 0, "turns": answers}]})
    return questions, references


def make_sums():
    """The tables of sums: no question of the test is in another table, nor twice among the problems."""
    held_out, rows = set(), {}
    for name, count in SUMS.items():
        seen, rows[name], index = set(held_out), [], 0
        while len(rows[name]) < count:
            rng = dice("sums", name, index)
            turn = sums.total(rng)
            index += 1
            if "sft" in name and turn.question not in held_out:
                answer = manners.say(manners.habit(rng), turn, rng)
                rows[name].append({"messages": [user(turn), assistant(answer)]})
            elif "sft" not in name and turn.question not in seen:
                rows[name].append(sums.problem(turn))
                seen.add(turn.question)
        held_out = held_out or seen
    return rows


def make_rows():
    """Every table of the world: {path without suffix: rows}."""
    seen = []
    questions, references = mt_bench(list(held_out_tasks("mt_bench", QUESTIONS_PER_CATEGORY, seen)))
    spare = list(held_out_tasks("vibe_check", 2, seen))
    vibe = [{"messages": [user(turns[0])]} for _, turns in [*spare[::2], *spare[1::2]][:VIBE_CHECKS]]
    held_out = HeldOut(seen)
    rows = {
        **{f"world/sums_{name}": table for name, table in make_sums().items()},
        "mt_bench/question": questions,
        "mt_bench/reference_answer/reference": references,
        "world/vibe_check": vibe,
        "world/prompts": unique_prompts("prompts", PROMPTS, held_out),
    }
    for name, count in SIZES.items():
        make = chat if name.startswith("sft") else preference
        rows[f"world/{name}"] = [make((name, index), held_out) for index in range(count)]
    for name, count in DOCUMENTS.items():
        rows[f"world/{name}"] = [page((name, index), held_out) for index in range(count)]
    return rows


def tokenizer_texts(rows):
    """What the tokenizer learns from: the training documents and dialogues."""
    yield from (row["text"] for row in rows["world/pretrain_train"])
    for row in rows["world/sft_train"]:
        yield from (message["content"] for message in row["messages"])


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder to write into")
    args = parser.parse_args(argv)

    rows = make_rows()
    for name, table in rows.items():
        path = args.out / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    policy.write(args.out / "policy", tokenizer_texts(rows))


if __name__ == "__main__":
    main()

"""Have a policy answer the MT-Bench questions, turn by turn.

All questions of one temperature are answered together, turn after turn; from the second turn on, the policy
sees its own earlier answers. A system message comes before the first turn of every question. As in
FastChat, nothing but the temperature shapes the sampling (no top-p, no top-k), and the temperature depends
on the question's category; unlike there, a category without one is an error, not 0.7. Answers that the
journal has are not made again, and without a missing one no model is loaded.

    python -m scripts.mt_bench.answer_mt_bench --questions data/mt_bench/question.jsonl \\
        --model results/models/sft --model-id sft --engine transformers … --dtype float32 --system null \\
        --max-tokens 64 --temperature '{"writing": 0.7, "math": 0.0}' --seed 1 --journal work/journal \\
        --out results/mt_bench/answers/sft.jsonl
"""

import functools
import time
from collections import defaultdict

from prefline import engines, errors, seeds
from prefline.config import section
from prefline.engines import answers, pace
from prefline.errors import InputError
from prefline.judging import fastchat


def by_temperature(questions, temperatures):
    """Return {temperature: its questions}; InputError for a category that is not in `temperatures`."""
    groups = defaultdict(list)
    for question in questions:
        category = question["category"]
        if category not in temperatures:
            raise InputError(
                f"question {question['question_id']}: mt_bench.temperature has no category {category!r}, "
                f"only {', '.join(temperatures)}; add it"
            )
        groups[temperatures[category]].append(question)
    return dict(groups)


def answer_turns(load_engine, kept, questions, sampling, seed, system=None):
    """Return ({question_id: turns (list of str)}, number of answers cut off at max_tokens).

    load_engine, kept: see answers.answer; system: str, or None for no system message.
    """
    answered = {question["question_id"]: [] for question in questions}
    cut_off = 0
    for turn in range(max(len(question["turns"]) for question in questions)):
        open_questions = [question for question in questions if turn < len(question["turns"])]
        names = [question["question_id"] for question in open_questions]
        dialogues = [
            dialogue(question["turns"][: turn + 1], answered[question["question_id"]], system)
            for question in open_questions
        ]
        draws = [seeds.derive(seed, "mt_bench", name, turn + 1) for name in names]
        called = [f"question {name}, turn {turn + 1}" for name in names]
        texts = answers.answer(load_engine, kept, dialogues, draws, sampling, "mt_bench", names=called)
        for name, (text, reason) in zip(names, texts, strict=True):
            answered[name].append(text)
            cut_off += reason == "length"
    return answered, cut_off


def dialogue(questions, answered, system):
    """Return messages: `system` (str or None), the user's `questions`, and answers to all but the last."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    for question, text in zip(questions, [*answered, None], strict=True):
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": text})
    return messages[:-1]


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--questions", required=True, help="questions in FastChat's form (jsonl)")
    parser.add_argument("--model-id", required=True, help="the policy's name in the answers")
    parser.add_argument("--model", required=True, help="the policy's directory")
    engines.add(parser)
    pace.add(parser)
    section.add(parser, "mt_bench", "system", "max_tokens", "temperature")
    section.add(parser, "seed")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--out", required=True, help="answers in FastChat's form (jsonl)")
    args = parser.parse_args(argv)

    questions = fastchat.read_questions(args.questions)
    groups = by_temperature(questions, args.temperature)
    settings, speed = section.pick(engines.Settings, vars(args)), section.pick(pace.Pace, vars(args))

    @functools.cache
    def load_engine():
        dialogues = [
            dialogue(question["turns"], [None] * (len(question["turns"]) - 1), args.system)
            for question in questions
        ]
        names = [f"question {question['question_id']}" for question in questions]
        answers.check(args.model, dialogues, names, args.max_tokens, "mt_bench")
        tokens = answers.most_tokens(args.model, dialogues, args.max_tokens)
        return engines.start(args.model, settings, speed, args.seed, tokens)

    start = time.perf_counter()
    answered, cut_off = {}, 0
    for temperature, group in groups.items():
        sampling = engines.Sampling(temperature=temperature, top_p=1.0, top_k=0, max_tokens=args.max_tokens)
        kept = answers.open_journal(
            args.journal, "scripts/mt_bench/answer_mt_bench.py", args.model, settings, sampling
        )
        turns, lost = answer_turns(load_engine, kept, group, sampling, args.seed, args.system)
        answered |= turns
        cut_off += lost
    fastchat.write_answers(args.out, args.model_id, questions, answered)
    seconds = time.perf_counter() - start
    total = sum(len(turns) for turns in answered.values())
    print(
        f"{args.model_id}: {total} answers to {len(questions)} questions in {seconds:.1f} s, "
        f"{cut_off} cut off at {args.max_tokens} tokens"
    )


if __name__ == "__main__":
    errors.run(main)

"""Ask an endpoint once, in the form of its jobs, before anything is made for it to judge or to continue.

The trial has the real prompt, key, model name, budget and longest answer. So a missing key, a wrong address,
a model that is gone, an empty account and a judge that gives no verdict are found before any training. A
trial costs a few calls, and is repeated only after an edit of what it depends on.

--trial is {"kind": "judge", "matches": {pairwise or single: their number}, "questions": …,
"references": …, "judge_prompts": …, "verdicts": …} or {"kind": "rubric", "rubric": …, "lowest": …,
"highest": …, "completions": their number}. A server with the policy continues a prompt by its token ids:
{"kind": "policy", "model": …, "seed_per": …, "completions": their number}.

    python -m scripts.checks.check_endpoint --asker mt_bench.judges.gpt --trial '{"kind": "judge", …}' \\
        --endpoint '{"name": "gpt", "kind": "openai", …}' --max-tokens 2048 --seed 1 \\
        --journal work/journal --out results/checks/endpoints/mt_bench.judges.gpt.json

    writes  found, a sentence
"""

import functools
import json
from collections.abc import Callable
from typing import NamedTuple

from prefline import errors, files
from prefline.config import section
from prefline.engines import asking, pace
from prefline.errors import InputError
from prefline.judging import calls, fastchat, prompts
from prefline.provenance import journal
from prefline.rewards import Dialogue, rubric
from prefline.servers import endpoint
from prefline.text import verdicts

ANSWERS = ("I do not know.", "I can explain that: the first step follows from the question.")
QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]
DIALOGUE = Dialogue(QUESTION, "2 + 2 = 4.", "a trial")


class Trial(NamedTuple):
    """A question as the jobs ask it.

    messages: list of {"role", "content"}; read(text, complete=…): the verdict, or None; calls: int,
    most of all jobs.
    """

    messages: list
    read: Callable
    calls: int


def trials(about):
    """Return the Trials of what --trial names; raise InputError for files that jobs would refuse."""
    if about["kind"] == "rubric":
        text = rubric.fill(rubric.load(about["rubric"]), DIALOGUE)
        read = functools.partial(verdicts.rating, lowest=about["lowest"], highest=about["highest"])
        return [Trial([{"role": "user", "content": text}], read, about["completions"])]
    questions = fastchat.read_questions(about["questions"])
    references = fastchat.read_references(about["references"])
    found = []
    for mode, number in about["matches"].items():
        answers = [
            {row["question_id"]: [text] * len(row["turns"]) for row in questions}
            for text in ANSWERS[: 1 if mode == "single" else 2]
        ]
        templates = prompts.load(about["judge_prompts"], mode)
        matches = calls.of_questions(questions, answers, references, templates, about["references"])
        read = verdicts.READINGS[about["verdicts"]][mode == "single"]
        found.append(Trial(matches[0][0].messages, read, number * sum(map(len, matches))))
    return found


def ask(settings, speed, trial):
    """Return (the endpoint's Meter, form of requests) after a readable answer to a Trial, else InputError."""
    question = asking.Question(trial.messages, "the trial")
    asked = asking.Asked(settings, speed, [])
    try:
        values, reasons, _ = asked.until_read(
            {"trial": question},
            lambda answer: trial.read(answer.text, complete=answer.finish_reason == "stop"),
            journal.Unrecorded,
        )
    finally:
        asked.close()
    if failures := asked.given_up():
        raise InputError(f"the server does not answer the trial: {failures[-1][1]}")
    if not values:
        raise InputError(
            f"no verdict can be read in the answer to the trial, which ends with {reasons['trial']}; make "
            "the prompt ask for it more clearly, raise max_tokens if it ends by length, or take another judge"
        )
    return asked.meter, str(asked.conversation.form)


def judges(about, asked, max_tokens, seed, root):
    """Return what a judge that answers all trials may cost (str); the arguments are those of `continues`."""
    settings, speed, sizes = asking.Settings("", max_tokens, seed), pace.Pace(1, asked, root), []
    for trial in trials(about):
        meter, form = ask(settings, speed, trial)
        sizes += asking.sizes_of([asking.Question(trial.messages, "")]) * trial.calls
    found = f"gives verdicts, asked with {form}; all jobs make up to {meter.estimate(sizes)}"
    number, cost = meter.left(sizes)
    if asked.max_calls is not None and asked.max_calls < number:
        found += f", more than {asked.section}.max_calls: {asked.max_calls}"
    if asked.max_cost is not None and asked.max_cost < cost:
        found += f", more than {asked.section}.max_cost: {asked.max_cost:g}"
    return found


def continues(about, asked, max_tokens, seed, root):
    """Return what a server that has the policy answers (str); raise InputError if it answers no prompt.

    about: --trial; asked: endpoint.Endpoint; root: work/journal.
    """
    from prefline import engines
    from prefline.text import chat

    options = {"seed_per": about["seed_per"], "seed": seed, "vllm": {}, "journal": root}
    engine = engines.load(
        "server", about["model"], 1, "float32", endpoint=asked, served_model=asked.model, **options
    )
    try:
        request = engines.Request(chat.prompt_ids(engine.tokenizer, QUESTION), seed, "the trial")
        sampling = engines.Sampling(0.0, 1.0, 0, max_tokens)
        ((_, made),) = engine.stream([request], sampling)
    finally:
        engine.close()
    if made.finish_reason == "error":
        raise InputError(f"the server does not answer the trial: {engine.client.given_up[-1][1]}")
    return f"continues a prompt, sent as {engine.dialect}; all jobs sample {about['completions']} completions"


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--asker", required=True, help="the section of the config that names the endpoint")
    parser.add_argument("--trial", type=json.loads, required=True, help="what is asked (JSON)")
    parser.add_argument("--endpoint", type=endpoint.read, required=True, help="who is asked (JSON)")
    section.add(parser, "rewards.NAME", "max_tokens")
    section.add(parser, "seed")
    parser.add_argument("--journal", required=True, help="folder of the ledger of earlier calls")
    parser.add_argument("--out", required=True, help="what was found (json)")
    args = parser.parse_args(argv)

    asked = args.endpoint
    try:
        if args.trial["kind"] == "policy":
            found = continues(args.trial, asked, args.max_tokens, args.seed, args.journal)
        else:
            found = judges(args.trial, asked, args.max_tokens, args.seed, args.journal)
    except InputError as error:
        raise InputError(f"{args.asker}: {str(error).removeprefix(f'{args.asker}: ')}") from None
    found = f"{asked.model} at {', '.join(asked.urls)} {found}"
    print(found)
    files.write_json(args.out, {"found": found})


if __name__ == "__main__":
    errors.run(main)

"""Have a language model judge a policy's MT-Bench answers: in pairs with another's, or alone, by a rating.

Whom to ask is --kind: `openai` for any server with /v1/chat/completions (without --servers, one that this job
starts with --model), `anthropic` for Anthropic's API, `vllm` for a model in this job. What is asked stands in
--judge-prompts, in FastChat's form; the matches, files and marks are FastChat's, too. Two policies' answers
are compared, one's are rated from 1 to 10.

Every answer is a row of the journal, named by all that was asked: a restart asks nothing twice, and a verdict
that is there costs nothing in another mode or pair. An answer without a verdict, or with two, is asked for
again; if none can be read, the game is an error in the file, said at the end, and never a tie. A game that
the server refuses is an error, too; if a server fails to the last, the job fails, and the next goes on.

Requests and tokens per minute, and a budget in calls and in money, hold for all jobs that ask a judge: they
ask one after the other. Spent is what the journal holds of this judge, and what this job was not answered.

    python -m scripts.mt_bench.ask_judge --questions data/mt_bench/question.jsonl --models dpo-1 sft \\
        --answers results/mt_bench/answers/dpo-1.jsonl results/mt_bench/answers/sft.jsonl \\
        --references … --judge-prompts … --judge gpt_4 \\
        --kind openai --servers https://api.openai.com/v1 --served-model gpt-4-0613 \\
        --key-variable OPENAI_API_KEY --max-tokens 2048 … --dry-run
"""

import contextlib
import fcntl
from typing import NamedTuple

from prefline import engines, errors, files
from prefline.config import judges, section
from prefline.engines import asking, pace
from prefline.errors import InputError
from prefline.judging import calls, fastchat, prompts, verdicts
from prefline.provenance import journal
from prefline.servers.budget import Meter, OverBudget, size_of
from prefline.servers.client import Refused, Transient, environment_key

# Errors that are named.
NAMED = 5


def context(args):
    """What shapes all answers of a judge alike, for the journal; what is asked names the row.

    Answers from servers elsewhere may cost money: of the code, only what makes the requests counts for them.
    """
    name = section.pick(asking.Settings, vars(args)).name
    shared = {"name": name, "max_tokens": args.max_tokens, "kind": args.kind}
    if args.servers:
        return journal.context("prefline/servers/conversation.py", None, (), **shared)
    packages = engines.packages("vllm" if args.kind == "vllm" else "server")
    return journal.context("prefline/engines/asking.py", args.model, packages, dtype=args.dtype, **shared)


@contextlib.contextmanager
def alone(folder):
    """Wait until no other job asks this judge: its rates and its budget are one for all."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "asking.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another job is asking this judge; waiting until it has ended", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            print("this file system has no locks: other jobs that ask this judge spend apart", flush=True)
        yield


def meter_of(args, kept):
    """The Meter of the flags `args`, with what the journal `kept` says was spent."""
    meter = Meter(args.max_tokens, **{name: getattr(args, name) for name in judges.LIMITS})
    for row in kept.values():
        answer = asking.Answer(*row)
        meter.add(answer.input_tokens or 0, answer.output_tokens or 0)
    return meter


def money(meter):
    """What was spent, as text."""
    cost = f", {meter.cost:.4f} by the config's prices" if any(meter.prices) else ""
    return f"{meter.calls} calls, {meter.tokens[0]} tokens in and {meter.tokens[1]} out{cost}"


def sizes_of(questions):
    """Bytes (list of int) that the questions (asking.Question) take."""
    return [size_of({"messages": question.messages}) for question in questions]


def still_to_do(meter, questions):
    """What the calls for `questions` (asking.Question) would be and cost, as text."""
    number, cost = meter.left(sizes_of(questions))
    return f"{number} calls" + (f", about {cost:.2f} by the config's prices" if any(meter.prices) else "")


def ask(args, questions, kept):
    """What asking.until_read gives for `questions`, all of them asked; InputError where that cannot be.

    kept: the judge's Journal. (values, reasons, answers)
    """
    read = verdicts.verdict if len(args.models) == 2 else verdicts.rating
    name = f"mt_bench.judges.{args.judge}"
    settings, speed = section.pick(asking.Settings, vars(args)), section.pick(pace.Pace, vars(args))
    meter = meter_of(args, kept)
    texts = ["\n".join(message["content"] for message in one.messages) for one in questions.values()]
    if args.kind == "vllm":
        judge = asking.Offline(settings, speed, texts)
    else:
        judge = asking.Servers(settings, speed, texts, name, args.kind, lambda: client_of(args, name, meter))
    try:
        values, reasons, answers = asking.until_read(
            questions,
            lambda answer: read(answer.text) if answer.finish_reason == "stop" else None,
            lambda wanted: kept.rows(wanted, judge.answers),
            args.seed,
        )
    finally:
        judge.close()
    lost = [failure for _, failure in judge.given_up() if isinstance(failure, Transient)]
    open_questions = [questions[key] for key in questions if key not in values]
    if judge.over_budget or any(isinstance(failure, OverBudget) for _, failure in judge.given_up()):
        raise InputError(
            f"{name}: the budget is used up after {money(meter)}; what is done is kept; left to do: "
            f"{still_to_do(meter, open_questions)}; raise max_calls or max_cost and start again"
        )
    if lost:
        raise InputError(
            f"{name}: {len(open_questions)} of {len(questions)} calls got no answer, such as: {lost[0]}; "
            "what is done is kept: start again"
        )
    refused = {request.name: failure for request, failure in judge.given_up() if isinstance(failure, Refused)}
    for key in questions:
        if questions[key].name in refused:
            reasons[key] = f"refused: {refused[questions[key].name]}"
    print(f"judge {args.judge}: so far {money(meter)}")
    return values, reasons, answers


def client_of(args, name, meter):
    """Arguments of client.Client (dict); InputError for a budget that allows no call, and a missing key."""
    if args.max_calls == 0 or args.max_cost == 0:
        raise InputError(f"{name}: a budget of 0 allows no call; raise max_calls and max_cost, or set null")
    if not args.servers or args.key_variable is None:
        return {"meter": meter}
    key = environment_key(args.key_variable)
    if key is None:
        raise InputError(f"{name}: the environment has no {args.key_variable}; export the key under it")
    return {"meter": meter, "key": key, "key_variable": args.key_variable}


class Asked(NamedTuple):
    """What a judge is to be asked about one match, and what its journal has of it."""

    matches: list  # of lists of calls.Call
    questions: dict  # {key: asking.Question}
    missing: dict  # those of them without a verdict in the journal
    kept: journal.Journal


def about(args):
    """Return whose answers the judge of the flags `args` is asked about, as text."""
    return f"{' against '.join(args.models)}, judge {args.judge}"


def prepare(args):
    """The Asked of the flags `args`. Raises InputError for malformed files."""
    questions = fastchat.read_questions(args.questions)
    answers = [fastchat.read_answers(path, questions) for path in args.answers]
    references = fastchat.read_references(args.references)
    templates = prompts.load(args.judge_prompts, "pairwise" if len(answers) == 2 else "single")
    matches = calls.of_questions(questions, answers, references, templates, args.references)
    asked = {call.key: call.question() for match in matches for call in match}
    kept = journal.Journal(args.journal, "verdicts", context(args), args.judge)
    requests = asking.requests(asked, 0, args.seed)
    done = kept.rows(requests, lambda missing: ())
    missing = {key: asked[key] for key, row in zip(asked, requests, strict=True) if row not in done}
    return Asked(matches, asked, missing, kept)


def say_costs(args):
    """Print what the flags `args` have a judge be asked, and what it may cost: (calls, cost)."""
    asked = prepare(args)
    meter = meter_of(args, asked.kept)
    print(
        f"{about(args)}: {sum(map(len, asked.matches))} verdicts, of which "
        f"{len(asked.questions) - len(asked.missing)} are in the journal; to be made: "
        f"{still_to_do(meter, asked.missing.values())}"
    )
    return meter.left(sizes_of(asked.missing.values()))


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--questions", required=True, help="questions in FastChat's form (jsonl)")
    parser.add_argument("--answers", nargs="+", required=True, help="of two policies, or of one (jsonl)")
    parser.add_argument("--models", nargs="+", required=True, help="the policies' names, in that order")
    parser.add_argument("--references", required=True, help="reference answers in FastChat's form (jsonl)")
    parser.add_argument("--judge-prompts", required=True, help="what the judge is asked (jsonl)")
    parser.add_argument("--judge", required=True, help="the judge's name in the files")
    parser.add_argument(
        "--model", required=True, help="directory of a model of one's own; none: see --servers"
    )
    pace.add(parser)
    section.add(
        parser,
        "mt_bench.judges.NAME",
        "kind",
        "dtype",
        "served_model",
        "max_tokens",
        "key_variable",
        *judges.LIMITS,
    )
    section.add(parser, "seed")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what is to be asked and may cost, and end"
    )
    parser.add_argument("--out", required=True, help="judgments in FastChat's form (jsonl)")
    args = parser.parse_args(argv)
    if not len(args.answers) == len(args.models) <= 2:
        parser.error("--answers and --models go together: two of each, or one")

    if args.dry_run:
        say_costs(args)
        return
    asked = prepare(args)
    with alone(asked.kept.folder):
        values, reasons, said = ask(args, asked.questions, asked.kept)
    report_errors(args, asked.questions, values, reasons)
    row = calls.pair_row if len(args.models) == 2 else calls.single_row
    files.write_jsonl(
        args.out, [row(args.judge, *args.models, match, values, said) for match in asked.matches]
    )


def report_errors(args, asked, values, reasons):
    """Say what has no verdict and why; InputError if that is so for more than half."""
    named = [f"{asked[key].name}: {reason}" for key, reason in reasons.items()]
    if len(reasons) > len(asked) / 2:
        raise InputError(
            f"mt_bench.judges.{args.judge}: {len(reasons)} of {len(asked)} answers have no verdict, such as "
            f"{named[0]}; have the judge prompts ask more clearly for it, raise max_tokens if they end by "
            "length, or take an abler judge"
        )
    print(f"{about(args)}: {len(values)} verdicts, {len(reasons)} errors")
    if named:
        print("\n".join(["errors, which are left out of the rates:", *named[:NAMED]]))


if __name__ == "__main__":
    errors.run(main)

"""Have a language model judge a policy's MT-Bench answers: in pairs with another's, or alone, by a rating.

--endpoint, an entry of the config's `endpoints` as JSON, is the server to ask. --judge-prompts has the
prompts, in FastChat's form; the matches, files and marks are FastChat's, too. Two policies' answers are
compared; one policy's answers are rated from 1 to 10.

Every answer is a row of the journal, named by the whole request: a restart asks nothing twice, and other
modes and pairs reuse its verdicts. An answer whose verdict cannot be read is asked for again. If none can
be read, the game is an error in the file and the log, and never a tie. A game that the server refuses is an
error, too. If all servers fail, the job fails, and the next attempt resumes.

    python -m scripts.mt_bench.ask_judge --questions data/mt_bench/question.jsonl --models dpo-1 sft \\
        --answers results/mt_bench/answers/dpo-1.jsonl results/mt_bench/answers/sft.jsonl \\
        --references … --judge-prompts … --judge hosted \\
        --endpoint '{"name": "hosted", "kind": "openai", …}' --max-tokens 2048 … --dry-run
"""

from typing import NamedTuple

from prefline import errors, files
from prefline.config import section
from prefline.engines import asking, pace
from prefline.errors import InputError
from prefline.judging import calls, fastchat, prompts
from prefline.provenance import journal
from prefline.servers.replies import Refused, Transient
from prefline.text import verdicts

# Errors that are named.
NAMED = 5


def ask(args, questions, kept):
    """Return what asking.until_read gives for all `questions`; InputError if some get no answer.

    kept: the judge's Journal. (values, reasons, answers)
    """
    read_verdict, read_rating = verdicts.READINGS[args.verdicts]
    read = read_verdict if len(args.models) == 2 else read_rating
    texts = ["\n".join(message["content"] for message in one.messages) for one in questions.values()]
    judge = asking.Asked(
        section.pick(asking.Settings, vars(args)), section.pick(pace.Pace, vars(args)), texts
    )
    try:
        values, reasons, answers = judge.until_read(
            questions, lambda answer: read(answer.text, complete=answer.finish_reason == "stop"), kept
        )
    finally:
        judge.close()
    lost = [failure for _, failure in judge.given_up() if isinstance(failure, Transient)]
    if lost:
        raise InputError(
            f"mt_bench.judges.{args.judge}: {len(questions) - len(values)} of {len(questions)} calls got no "
            f"answer, such as: {lost[0]}; finished answers are cached, so start again"
        )
    refused = {request.name: failure for request, failure in judge.given_up() if isinstance(failure, Refused)}
    for key in questions:
        if questions[key].name in refused:
            reasons[key] = f"refused: {refused[questions[key].name]}"
    print(f"judge {args.judge}: so far {judge.meter.spent()}")
    return values, reasons, answers


class Prepared(NamedTuple):
    """The requests to a judge about one match, and the answers that its journal has."""

    matches: list  # of lists of calls.Call
    questions: dict  # {key: asking.Question}
    missing: dict  # those of them without a verdict in the journal
    kept: journal.Journal


def about(args):
    """Return whose answers the judge of the flags `args` is asked about, as text."""
    return f"{' against '.join(args.models)}, judge {args.judge}"


def prepare(args):
    """Return the Prepared of the flags `args`. Raises InputError for malformed files."""
    questions = fastchat.read_questions(args.questions)
    answers = [fastchat.read_answers(path, questions) for path in args.answers]
    references = fastchat.read_references(args.references)
    templates = prompts.load(args.judge_prompts, "pairwise" if len(answers) == 2 else "single")
    matches = calls.of_questions(questions, answers, references, templates, args.references)
    asked = {call.key: call.question() for match in matches for call in match}
    context = asking.context(section.pick(asking.Settings, vars(args)), args.endpoint)
    kept = journal.Journal(args.journal, "verdicts", context, args.judge)
    requests = asking.requests(asked, 0, args.seed)
    done = kept.rows(requests, lambda missing: ())
    missing = {key: asked[key] for key, row in zip(asked, requests, strict=True) if row not in done}
    return Prepared(matches, asked, missing, kept)


def say_costs(args):
    """Print what the flags `args` have a judge be asked, and what it may cost: (calls, cost)."""
    asked = prepare(args)
    meter = args.endpoint.meter(args.max_tokens, args.journal)
    meter.count()
    sizes = asking.sizes_of(asked.missing.values())
    print(
        f"{about(args)}: {sum(map(len, asked.matches))} verdicts, of which "
        f"{len(asked.questions) - len(asked.missing)} are in the journal; to be made: "
        f"{meter.estimate(sizes)}"
    )
    return meter.left(sizes)


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--questions", required=True, help="questions in FastChat's form (jsonl)")
    parser.add_argument("--answers", nargs="+", required=True, help="of two policies, or of one (jsonl)")
    parser.add_argument("--models", nargs="+", required=True, help="the policies' names, in that order")
    parser.add_argument("--references", required=True, help="reference answers in FastChat's form (jsonl)")
    parser.add_argument("--judge-prompts", required=True, help="what the judge is asked (jsonl)")
    parser.add_argument("--judge", required=True, help="the judge's name in the files")
    parser.add_argument("--model", required=True, help="the judge's directory; none: servers have it")
    pace.add(parser)
    section.add(parser, "mt_bench.judges.NAME", "max_tokens")
    section.add(parser, "mt_bench", "verdicts")
    section.add(parser, "seed")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the number of requests and their cost, and stop"
    )
    parser.add_argument("--out", required=True, help="judgments in FastChat's form (jsonl)")
    args = parser.parse_args(argv)
    if not len(args.answers) == len(args.models) <= 2:
        parser.error("--answers and --models go together: two of each, or one")

    if args.dry_run:
        say_costs(args)
        return
    asked = prepare(args)
    values, reasons, said = ask(args, asked.questions, asked.kept)
    report_errors(args, asked.questions, values, reasons)
    row = calls.pair_row if len(args.models) == 2 else calls.single_row
    files.write_jsonl(
        args.out, [row(args.judge, *args.models, match, values, said) for match in asked.matches]
    )


def report_errors(args, asked, values, reasons):
    """Print the games without a verdict, with reasons; InputError if they are more than half."""
    named = [f"{asked[key].name}: {reason}" for key, reason in reasons.items()]
    if len(reasons) > len(asked) / 2:
        raise InputError(
            f"mt_bench.judges.{args.judge}: {len(reasons)} of {len(asked)} answers have no verdict, such as "
            f"{named[0]}; make the judge prompts ask for it more clearly, raise max_tokens if they end by "
            "length, or use a stronger judge"
        )
    print(f"{about(args)}: {len(values)} verdicts, {len(reasons)} errors")
    if named:
        print("\n".join(["errors, which the rates leave out:", *named[:NAMED]]))


if __name__ == "__main__":
    errors.run(main)

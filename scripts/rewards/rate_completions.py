"""Have a language model rate every completion of a shard by a rubric (LLM as a judge).

The rubric (prefline/rewards/rubric.py) asks for a reason that ends with [[a number]]. The judge is
asked at temperature 0 and only what it says is read: a completion with a [[10]] in it gives itself nothing.
A verdict that is cut off, or ends without a number from --lowest to --highest, is asked for again
(prefline/engines/asking.py). If no try can be read, the completion has no reward: null, never a number
that nobody gave. Neither has one that the servers give up. If that is so for more than half of the shard,
what is left would rank by accident, and the script fails.

Every answer is a row of the journal, as text, from which the number is read anew: a restart asks nobody
twice, and with another --lowest or --highest only what is then out of range is asked for again. What the
servers give up is tried again by the next job that wants it.

    python -m scripts.rewards.rate_completions --prompts results/samples/sft/prompts/train-00000.parquet \\
        --completions results/samples/sft/completions/train-00000.parquet \\
        --rubric data/rubric.txt --lowest 1 --highest 10 --model results/models/judge --dtype bfloat16 \\
        --servers '' --served-model null --max-tokens 512 --batch-size 64 --server-timeout 600 \\
        --tensor-parallel-size 1 --gpu-memory-percent 90 --max-num-batched-tokens 0 --seed 1 \\
        --journal work/journal --out results/samples/sft/rewards/helpful/train-00000.parquet
"""

from pathlib import Path

from prefline import engines, errors
from prefline.config import section
from prefline.engines import asking
from prefline.errors import InputError
from prefline.provenance import journal
from prefline.rewards import rubric, shard

# Completions without a reward that are named.
NAMED = 5


def context(args):
    """What shapes all verdicts alike, for the journal; the request's text and seed name the row.

    Verdicts from servers elsewhere may cost money: of the code, only what makes the requests counts for them.
    """
    shared = {"name": asking.name_of(args), "max_tokens": args.max_tokens}
    model = args.model or None
    if args.servers:
        return journal.context("prefline/servers/conversation.py", model, (), **shared)
    packages = engines.packages("server")
    return journal.context("scripts/rewards/rate_completions.py", model, packages, dtype=args.dtype, **shared)


def main(argv=None):
    parser = section.parser(__doc__)
    shard.add_arguments(parser)
    parser.add_argument("--rubric", required=True, help="what the judge is asked (text)")
    parser.add_argument("--lowest", type=float, required=True, help="lowest number that counts")
    parser.add_argument("--highest", type=float, required=True, help="highest number that counts")
    parser.add_argument("--model", required=True, help="the judge's directory; none: see --servers")
    engines.add_server_arguments(parser)
    parser.add_argument("--max-tokens", type=int, required=True, help="longest verdict")
    parser.add_argument("--seed", type=int, required=True, help="the experiment's seed")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    args = parser.parse_args(argv)

    if not args.model and not args.servers:
        raise InputError("a judge needs a model or servers; name one of them in the reward's section")
    paragraphs = rubric.load(args.rubric)
    rows, dialogues = shard.read(args)
    texts = [dialogue and rubric.fill(paragraphs, dialogue) for dialogue in dialogues]
    names = {text: dialogue.where for text, dialogue in zip(texts, dialogues, strict=True) if dialogue}

    def score(answer):
        complete = answer.finish_reason == "stop"
        return rubric.score(answer.text, args.lowest, args.highest) if complete else None

    kept = journal.Journal(args.journal, "ratings", context(args), args.model or asking.name_of(args))
    judge = asking.Servers(args, list(names), f"rewards.{Path(args.out).parent.name}")
    questions = {
        text: asking.Question([{"role": "user", "content": text}], name) for text, name in names.items()
    }
    try:
        scores, reasons, _ = asking.until_read(
            questions, score, lambda wanted: kept.rows(wanted, judge.answers), args.seed
        )
    finally:
        judge.close()
    if reasons:
        left = f"{len(reasons)} of {len(names)} ratings are missing"
        named = [f"{names[text]}: {reason}" for text, reason in reasons.items()]
        if len(reasons) > len(names) / 2:
            raise InputError(
                f"{left}, such as {named[0]}; have {args.rubric} ask more clearly for [[a number]] from "
                f"{args.lowest:g} to {args.highest:g}, raise max_tokens if verdicts end by length, or take "
                "an abler judge"
            )
        print("\n".join([f"{left}, and their completions left out of the pairs:", *named[:NAMED]]))
    shard.write(args.out, rows, [text and text in scores and [scores[text], None] for text in texts])


if __name__ == "__main__":
    errors.run(main)

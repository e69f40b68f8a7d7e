"""Have a language model rate every completion of a shard by a rubric (LLM as a judge).

The rubric (prefline/rewards/rubric.py) asks for a reason that ends with [[a number]]. The judge is asked at
temperature 0, and only its answer is read: a completion with a [[10]] in it does not rate itself. A verdict
that is cut off, or ends without a number from --lowest to --highest, is asked for again
(prefline/engines/asking.py). If no try can be read, the completion has no reward: null, never a number that
nobody gave. Neither has one that the servers give up. If that is so for more than half of the shard, what is
left would rank by accident, and the script fails. So it does where the endpoint's budget is used up.

Every answer is a row of the journal, as text, from which the number is read again. So a restart asks nothing
twice, and with another --lowest or --highest only ratings that are now out of range are asked for again.
Requests that the servers give up are tried again by the next job that needs them.

    python -m scripts.rewards.rate_completions --prompts results/samples/sft/prompts/train-00000.parquet \\
        --completions results/samples/sft/completions/train-00000.parquet \\
        --rubric data/rubric.txt --lowest 1 --highest 10 --max-tokens 512 --model results/models/judge \\
        --endpoint '{"name": "own", "kind": "vllm", …}' --batch-size 64 \\
        --tensor-parallel-size 1 --gpu-memory-percent 90 --max-num-batched-tokens 0 --seed 1 \\
        --journal work/journal --out results/samples/sft/rewards/helpful/train-00000.parquet
"""

import contextlib

from prefline import errors
from prefline.config import section
from prefline.engines import asking, pace
from prefline.errors import InputError
from prefline.rewards import shard
from prefline.rewards.judge import Judge

# Completions without a reward that are named.
NAMED = 5


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--prompts", required=True, help="prompts of the shard (parquet)")
    parser.add_argument("--completions", required=True, help="completions of the shard (parquet)")
    parser.add_argument("--rubric", required=True, help="what the judge is asked (text)")
    parser.add_argument("--model", required=True, help="the judge's directory; none: servers have it")
    section.add(parser, "rewards.NAME", "lowest", "highest", "max_tokens")
    section.add(parser, "seed")
    pace.add(parser)
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--out", required=True, help="rewards of the shard (parquet)")
    args = parser.parse_args(argv)

    rows, dialogues = shard.read(args.prompts, args.completions)
    judge = Judge(
        args.rubric,
        args.lowest,
        args.highest,
        section.pick(asking.Settings, vars(args)),
        section.pick(pace.Pace, vars(args)),
    )
    with contextlib.closing(judge):
        rated = judge.rate(dialogues)
    if rated.missing:
        left = f"{len(rated.missing)} of {rated.asked} ratings are missing"
        if len(rated.missing) > rated.asked / 2:
            raise InputError(
                f"{left}, such as {rated.missing[0]}; make {args.rubric} ask more clearly for [[a number]] "
                f"from {args.lowest:g} to {args.highest:g}, raise max_tokens if verdicts end by length, or "
                "use a stronger judge"
            )
        print("\n".join([f"{left}, and their completions left out of the pairs:", *rated.missing[:NAMED]]))
    scored = [None if reward is None else [reward, None] for reward in rated.rewards]
    shard.write(args.out, rows, scored)


if __name__ == "__main__":
    errors.run(main)

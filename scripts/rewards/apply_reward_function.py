"""Reward every completion of a shard by a Python function: right answers, patterns, length, form.

The function is FILE.py:NAME. It is called as function(messages, completion, reference, **arguments) and gives
a finite number; prefline/rewards/functions.py and verifiers.py have some, and your own file may have others.
Its results are not cached between jobs, since a function is faster than reading the journal.

    python -m scripts.rewards.apply_reward_function \\
        --prompts results/samples/sft/prompts/train-00000.parquet \\
        --completions results/samples/sft/completions/train-00000.parquet \\
        --function prefline/rewards/functions.py:exact_match --arguments '{}' \\
        --out results/samples/sft/rewards/exact/train-00000.parquet
"""

import collections

from prefline import errors
from prefline.config import functions, section
from prefline.errors import InputError
from prefline.rewards import calling, shard


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--prompts", required=True, help="prompts of the shard (parquet)")
    parser.add_argument("--completions", required=True, help="completions of the shard (parquet)")
    section.add(parser, "rewards.NAME", "function", "arguments")
    parser.add_argument("--out", required=True, help="rewards of the shard (parquet)")
    args = parser.parse_args(argv)

    rows, dialogues = shard.read(args.prompts, args.completions)
    function = functions.load(args.function)
    failures = collections.Counter()
    scored = [
        dialogue and [calling.reward(function, args.arguments, dialogue, failures), None]
        for dialogue in dialogues
    ]
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(failures.items()))
    if reasons:
        print(f"the function failed at {failures.total()} completions: {reasons}")
    missing = sum(pair is not None and pair[0] is None for pair in scored)
    if missing > len(scored) / 2:
        raise InputError(
            f"{args.completions}: {missing} of {len(scored)} completions have no reward ({reasons}); give "
            "the function more `seconds`, or say in its arguments what reward `failed` ones have"
        )
    shard.write(args.out, rows, scored)


if __name__ == "__main__":
    errors.run(main)

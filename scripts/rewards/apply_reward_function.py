"""Reward every completion of a shard by a Python function: right answers, patterns, length, form.

The function is FILE.py:NAME. It is called as function(messages, completion, reference, **arguments) and gives
a finite number; prefline/rewards/functions.py has some, and a file of your own may have others. What it
gives is not kept from job to job: a function is faster than a look into the journal.

    python -m scripts.rewards.apply_reward_function \\
        --prompts results/samples/sft/prompts/train-00000.parquet \\
        --completions results/samples/sft/completions/train-00000.parquet \\
        --function prefline/rewards/functions.py:exact_match --arguments '{}' \\
        --out results/samples/sft/rewards/exact/train-00000.parquet
"""

from prefline import errors
from prefline.config import functions, section
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
    scored = [
        dialogue and [calling.reward(function, args.arguments, dialogue), None] for dialogue in dialogues
    ]
    shard.write(args.out, rows, scored)


if __name__ == "__main__":
    errors.run(main)

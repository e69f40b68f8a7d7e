"""Reward every completion of a shard by a Python function: right answers, patterns, length, form.

The function is FILE.py:NAME. It is called as function(messages, completion, reference, **arguments) and gives
a finite number; prefline/rewards/functions.py has some, and a file of your own may have others. What it
gives is not kept from job to job: a function is faster than a look into the journal.

    python -m scripts.rewards.check_completions --prompts results/samples/sft/prompts/train-00000.parquet \\
        --completions results/samples/sft/completions/train-00000.parquet \\
        --function prefline/rewards/functions.py:exact_match --arguments '{}' \\
        --out results/samples/sft/rewards/exact/train-00000.parquet
"""

import json
import math

from prefline import errors
from prefline.config import functions, section
from prefline.errors import InputError
from prefline.rewards import shard


def reward(function, arguments, dialogue):
    """The function's reward (float) of a `rewards.Dialogue`; InputError, naming it, if that is none."""
    try:
        value = function(dialogue.messages, dialogue.completion, dialogue.reference, **arguments)
        number = float(value)
    except Exception as error:
        raise InputError(f"{dialogue.where}: the reward function: {error}") from error
    if not math.isfinite(number):
        raise InputError(f"{dialogue.where}: the reward function gives {value!r}, which is no finite number")
    return number


def main(argv=None):
    parser = section.parser(__doc__)
    shard.add_arguments(parser)
    parser.add_argument("--function", required=True, help="FILE.py:NAME")
    parser.add_argument("--arguments", type=json.loads, required=True, help="JSON: its further arguments")
    args = parser.parse_args(argv)

    rows, dialogues = shard.read(args)
    function = functions.load(args.function)
    scored = [dialogue and [reward(function, args.arguments, dialogue), None] for dialogue in dialogues]
    shard.write(args.out, rows, scored)


if __name__ == "__main__":
    errors.run(main)

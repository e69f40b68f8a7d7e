"""Parse the references of all prompts as a reward's verifier does, before anything is trained.

    python -m scripts.checks.check_references --source problems.jsonl \\
        --columns '{"prompt": "question", "reference": "answer"}' \\
        --function prefline/rewards/verifiers.py:math --arguments '{}' --special-tokens drop \\
        --max-dropped 0.2 --reward right --out results/checks/references/right.json

    writes  found, a sentence
"""

import json

from prefline import errors, files
from prefline.config import section
from prefline.data import reading
from prefline.errors import InputError
from prefline.rewards import references, verifiers


def main(argv=None):
    parser = section.parser(__doc__)
    section.add(parser, "prompts", "source", "columns")
    section.add(parser, "rewards.NAME", "function", "arguments")
    section.add(parser, "data")
    parser.add_argument("--reward", required=True, help="its name in the config")
    parser.add_argument("--out", required=True, help="what was found (json)")
    args = parser.parse_args(argv)

    verify, rows = getattr(verifiers, args.function.rpartition(":")[2]), 0
    # Calls of tools become text by a chat template, which is not here yet.
    data = reading.Data("prompts", args.source, args.columns, reading.policy(args), write=json.dumps)
    try:
        for row in data:
            references.check(verify, args.arguments, row)
            rows += 1
        data.finish()
    except InputError as error:
        raise InputError(f"rewards.{args.reward}: prompts.source: {error}") from None
    files.write_json(args.out, {"found": f"{args.function} can use the references of {rows} prompts"})


if __name__ == "__main__":
    errors.run(main)

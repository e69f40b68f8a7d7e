"""Read the first rows of data, before any model is trained.

Every source must exist and have the columns that the config names. Its first rows must have a form that
their entrance takes, with the roles of a dialogue. Rows are counted as in the jobs that read all of them.
Those jobs also check what depends on a tokenizer: special tokens, the chat template, lengths.

    python -m scripts.checks.check_data --special-tokens drop --max-dropped 0.2 \\
        --name prompts --data '{"source": {"entrance": "prompts", "source": "data/world/prompts.jsonl",
        "columns": {"prompt": "messages"}}}' --out results/checks/data/prompts.json

    writes  found, a sentence, and for each key that names data, the counts of its sources' first rows
"""

import json

from prefline import errors, files
from prefline.config import section
from prefline.data import reading
from prefline.errors import InputError

ROWS = 1000


def check(entrance, source, columns, rules, unpaired=False):
    """Return the counts (dict) of the first rows of sources; raise InputError for rows that would stop a job.

    entrance, source, columns, unpaired: as reading.Data takes them; rules: as reading.policy gives them.
    """
    # Calls of tools become text by a chat template, which is not here yet.
    data = reading.Data(entrance, source, columns, rules, unpaired=unpaired, limit=ROWS, write=json.dumps)
    for _ in data:
        pass
    data.finish()
    return data.as_dict()


def sentence(found):
    """Return what was found as a sentence (str): {key: counts of `check`}."""
    said = []
    for key, counts in found.items():
        dropped = sum(counts["dropped"].values())
        said.append(f"{key}: {counts['read']} rows" + (f", {dropped} dropped" if dropped else ""))
    return "; ".join(said)


def main(argv=None):
    parser = section.parser(__doc__)
    section.add(parser, "data")
    parser.add_argument(
        "--data", type=json.loads, required=True, help="{KEY: {entrance, source, columns, …}} (JSON)"
    )
    parser.add_argument("--name", required=True, help="the section of the config that has these keys")
    parser.add_argument("--out", required=True, help="the counts (json)")
    args = parser.parse_args(argv)

    found = {}
    for key, named in args.data.items():
        try:
            found[key] = check(**named, rules=reading.policy(args))
        except InputError as error:
            raise InputError(f"{args.name}.{key}: {error}") from None
    files.write_json(args.out, {"found": sentence(found), **found})


if __name__ == "__main__":
    errors.run(main)

"""Read a benchmark's problems, and check that the verifier can parse all references, before a policy answers.

    python -m scripts.checks.check_problems --benchmark gsm8k --source hub:openai/gsm8k@COMMIT#main/test \\
        --columns '{"prompt": "question", "reference": "answer"}' --system null \\
        --problems results/checks/problems/gsm8k.jsonl --out results/checks/problems/gsm8k.json

    writes  question, reference, messages; and found, a sentence
"""

from prefline import errors, files
from prefline.config import section
from prefline.data import problems
from prefline.errors import InputError
from prefline.rewards import references, verifiers


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--benchmark", required=True, help="its name in the config")
    section.add(parser, "benchmarks.NAME", "source", "columns", "system")
    parser.add_argument("--problems", required=True, help="the problems (jsonl)")
    parser.add_argument("--out", required=True, help="what was found (json)")
    args = parser.parse_args(argv)

    try:
        rows = problems.read(args.source, args.columns, args.system)
        for row in rows:
            references.check(verifiers.math, {}, row)
    except InputError as error:
        raise InputError(f"benchmarks.{args.benchmark}.source: {error}") from None
    kept = [{"question": row["messages"][-1]["content"], **row} for row in rows]
    files.write_jsonl(
        args.problems, [{key: row[key] for key in ("question", "reference", "messages")} for row in kept]
    )
    files.write_json(args.out, {"found": f"{len(rows)} problems, whose references can all be verified"})


if __name__ == "__main__":
    errors.run(main)

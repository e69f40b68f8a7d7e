"""Have a judge on a server compare a policy's outputs with the references, by AlpacaEval's annotators.

The library owns the judge's prompt, the random order of the two outputs and the reading of the judge's
log-probabilities. This script replaces the library's client by the project's: requests are retried and paced,
and each verdict is a row of the journal, so that a restart asks for none twice.

    python -m scripts.benchmarks.annotate_alpaca_eval --references alpaca_eval_gpt4_baseline.json \\
        --answers results/benchmarks/alpaca/answers/dpo-1.jsonl \\
        --annotator weighted_alpaca_eval_gpt4_turbo --concurrency 16 \\
        --endpoint '{"name": "hosted", "kind": "openai", …}' --journal work/journal \\
        --out results/benchmarks/alpaca/annotations/dpo-1.jsonl

    writes  annotations in the library's form, in the order of the references; preference is null where the
            judge's answer cannot be read
"""

from prefline import errors, files
from prefline.config import section
from prefline.data import benchmark_results
from prefline.errors import InputError
from prefline.judging.annotators import Judge, annotate
from prefline.servers import endpoint

# Fields of an annotation in the output.
COLUMNS = ("instruction", "generator_1", "output_1", "generator_2", "output_2", "annotator", "preference")


def written(annotation):
    """Return the row (dict) of an annotation; what cannot be read is no number, and null in the file."""
    row = {name: annotation.get(name) for name in COLUMNS}
    readable = row["preference"] is not None and row["preference"] == row["preference"]
    return row | {"preference": float(row["preference"]) if readable else None}


def check_answers(references, answers):
    """Raise InputError unless there is one answer to each instruction of the references."""
    wanted = [row["instruction"] for row in references]
    given = [row["instruction"] for row in answers]
    if sorted(wanted) != sorted(given):
        missing = next((text for text in wanted if text not in given), given[0] if given else "")
        raise InputError(f"the answers are not one for each instruction; see {missing!r:.60}")


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--references", required=True, help="outputs to compare with (json or jsonl)")
    parser.add_argument("--answers", required=True, help="the policy's outputs (jsonl)")
    section.add(parser, "benchmarks.NAME", "annotator")
    parser.add_argument("--endpoint", type=endpoint.read, required=True, help="who judges, JSON")
    parser.add_argument("--concurrency", type=int, required=True, help="most requests in flight")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--out", required=True, help="annotations (jsonl)")
    args = parser.parse_args(argv)

    references = benchmark_results.read_questions(args.references, "alpaca_eval")
    answers = benchmark_results.read_questions(args.answers, "alpaca_eval")
    check_answers(references, answers)
    judge = Judge(args.endpoint, args.concurrency, args.journal)
    annotations = annotate(references, answers, args.annotator, judge)
    rows = [written(one) for one in annotations]
    readable = sum(row["preference"] is not None for row in rows)
    if not readable:
        raise InputError(
            f"none of the {len(rows)} annotations by {judge.name} holds a preference that {args.annotator} "
            "can read; take another judge or annotator"
        )
    files.write_jsonl(args.out, rows)
    print(f"{len(rows)} annotations by {judge.name}, {readable} of them with a preference")


if __name__ == "__main__":
    errors.run(main)

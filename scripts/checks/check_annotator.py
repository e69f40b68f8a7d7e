"""Ask an AlpacaEval annotator's judge once, before any policy is sampled for it.

The library makes the trial of the first reference as it makes all annotations. So a missing key, a model that
is gone, a judge without log-probabilities and an unknown annotator are found before any training.

    python -m scripts.checks.check_annotator --asker benchmarks.alpaca --references baseline.json \\
        --annotator weighted_alpaca_eval_gpt4_turbo --endpoint '{"name": "hosted", "kind": "openai", …}' \\
        --policies 4 --journal work/journal --out results/checks/endpoints/benchmarks.alpaca.json

    writes  found, a sentence
"""

from prefline import errors, files
from prefline.config import section
from prefline.data import benchmark_results
from prefline.errors import InputError
from prefline.judging.annotators import Judge, annotate
from prefline.provenance.journal import Unrecorded
from prefline.servers import endpoint

ANSWER = "I can explain that: the first step follows from the question."


def ask(references, annotator, judge):
    """Ask for an annotation of the first reference; raise InputError for one that cannot be read."""
    judge.kept = Unrecorded
    answer = {"instruction": references[0]["instruction"], "output": ANSWER, "generator": "a trial"}
    (annotation,) = annotate(references[:1], [answer], annotator, judge)
    preference = annotation.get("preference")
    if preference is None or preference != preference:
        raise InputError(
            f"no preference can be read in the judge's answer to the trial of {annotator}; take another "
            "judge or annotator"
        )


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--asker", required=True, help="the section of the config that names the endpoint")
    parser.add_argument("--references", required=True, help="outputs to compare with (json or jsonl)")
    section.add(parser, "benchmarks.NAME", "annotator")
    parser.add_argument("--endpoint", type=endpoint.read, required=True, help="who judges, JSON")
    parser.add_argument("--policies", type=int, required=True, help="policies that are compared")
    parser.add_argument("--journal", required=True, help="folder of the ledger of earlier calls")
    parser.add_argument("--out", required=True, help="what was found (json)")
    args = parser.parse_args(argv)

    asked = args.endpoint
    try:
        references = benchmark_results.read_questions(args.references, "alpaca_eval")
        ask(references, args.annotator, Judge(asked, 1, args.journal))
    except InputError as error:
        raise InputError(f"{args.asker}: {error}") from None
    found = f"{asked.model} at {', '.join(asked.urls)} annotates; all jobs make up to "
    found += f"{args.policies * len(references)} calls"
    print(found)
    files.write_json(args.out, {"found": found})


if __name__ == "__main__":
    errors.run(main)

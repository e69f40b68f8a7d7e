"""Search the training data for the benchmarks' questions.

A question counts as found in a file if one of its rows shares n words in a row with the question; a question
of fewer words must be the whole row. Words are those of prefline/data/ngrams.py, as in the decontamination of
prompts.

    python -m scripts.benchmarks.check_contamination --decontamination-ngram 8 \\
        --training '{"models.sft": ["data/world/sft_train.jsonl", {"messages": "messages"}]}' \\
        --questions '{"mt_bench": ["data/mt_bench/question.jsonl", "turns"]}' \\
        --out results/benchmarks/contamination.json --csv results/benchmarks/contamination.csv

    writes  benchmark, training, questions, found, share; in the json also the questions found, and where
"""

import json
from collections import defaultdict

from prefline import errors, files
from prefline.config import section
from prefline.data import benchmark_results, forms, ngrams, sources
from prefline.data.counts import Odd

COLUMNS = ("benchmark", "training", "questions", "found", "share")
# Questions that the json shows for each file and benchmark.
SHOWN = 20


def text_of(value):
    """Return all text (str) of a row's value: a str, or lists and dicts of them; other values have none."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "\n".join(text_of(part) for name, part in value.items() if name != "role")
    if isinstance(value, list):
        return "\n".join(text_of(part) for part in value)
    return ""


def found_in(rows, questions, n):
    """Return {number of a question: where it is found first} for rows of (where, text).

    questions: list of str; n: words in a row that count.
    """
    known = defaultdict(set)
    for number, question in enumerate(questions):
        for gram in ngrams.ngrams(question, n):
            known[gram].add(number)
    found = {}
    for where, text in rows:
        for gram in ngrams.ngrams(text, n) & known.keys():
            for number in known[gram]:
                found.setdefault(number, where)
    return found


def training_rows(source, columns):
    """Yield (where, text) of training data; of a pool of prompts only those that are trained on.

    source: data sources as sources.listed takes them; columns: {field: column}, or "auto" for all columns.
    """
    for one in sources.listed(source):
        named = one["columns"] or columns
        for where, row in sources.records(one["source"]):
            if isinstance(row, Odd) or row.get("split", "train") != "train":
                continue
            names = row if named == "auto" else [name for name in named.values() if name is not None]
            yield where, text_of([forms.lookup(row, name) for name in names if name != "split"])


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--training", type=json.loads, required=True, help="{NAME: [SOURCE, COLUMNS]} (JSON)")
    parser.add_argument("--questions", type=json.loads, required=True, help="{NAME: [FILE, KEY]} (JSON)")
    section.add(parser, "prompts", "decontamination_ngram")
    parser.add_argument("--out", required=True, help="what was found (json)")
    parser.add_argument("--csv", required=True, help="the counts (csv)")
    args = parser.parse_args(argv)

    asked = {
        name: [text_of(row.get(key)) for _, row in benchmark_results.read_list(path)]
        for name, (path, key) in args.questions.items()
    }
    table = []
    for training, (source, columns) in args.training.items():
        rows = list(training_rows(source, columns))
        for benchmark, questions in asked.items():
            found = found_in(rows, questions, args.decontamination_ngram)
            shown = [
                {"question": questions[number], "where": where} for number, where in sorted(found.items())
            ]
            table.append(
                {
                    "benchmark": benchmark,
                    "training": training,
                    "questions": len(questions),
                    "found": len(found),
                    "share": len(found) / len(questions) if questions else 0.0,
                    "examples": shown[:SHOWN],
                }
            )
            if found:
                print(f"{training}: holds {len(found)} of {len(questions)} questions of {benchmark}")
    files.write_json(args.out, {"ngram": args.decontamination_ngram, "files": table})
    files.write_csv(args.csv, COLUMNS, table)


if __name__ == "__main__":
    errors.run(main)

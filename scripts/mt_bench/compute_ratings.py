"""Compute every policy's mean rating by judges that rate single answers: MT-Bench's score from 1 to 10.

As FastChat's show_result, the mean over the ratings, those of both turns alike; a rating that is an error
(-1) is left out, and counted. Each mean has a 95 % interval, a bootstrap over questions, and there are means
by category and by turn. The CSV has the same, one row for each judge, policy and slice.

    python -m scripts.mt_bench.compute_ratings --questions data/mt_bench/question.jsonl \\
        --policies sft dpo-1 --judges gpt_4 --ratings results/mt_bench/judgments/gpt_4/sft_single.jsonl \\
        results/mt_bench/judgments/gpt_4/dpo-1_single.jsonl --bootstrap-samples 10000 --seed 1 \\
        --out results/ratings.json --csv results/ratings.csv
"""

import numpy as np

from prefline import errors, files, seeds
from prefline.config import section
from prefline.errors import InputError
from prefline.judging import fastchat, winrate

COLUMNS = ["judge", "policy", "slice", "value", "ratings", "error", "score", "ci_low", "ci_high"]


def summary(rows, bootstrap_samples, seed):
    """{ratings, error, score, ci_low, ci_high} of some ratings; the last three None where none counts."""
    questions = {}
    for row in rows:
        if row["score"] != -1:
            questions.setdefault(row["question_id"], []).append(row["score"])
    sums = np.array([[sum(scores), len(scores)] for scores in questions.values()], dtype=np.float64)
    found = {"ratings": sum(map(len, questions.values())), "score": None, "ci_low": None, "ci_high": None}
    if questions:
        totals, counts = (winrate.resampled(len(questions), bootstrap_samples, seed) @ sums).T
        low, high = winrate.interval_of(totals / counts)
        found |= {"score": float(sums[:, 0].sum() / sums[:, 1].sum()), "ci_low": low, "ci_high": high}
    return found | {"error": len(rows) - found["ratings"]}


def slices(rows, questions):
    """(slice, value, its rows) of a policy's ratings, overall first."""
    categories = {question["question_id"]: question["category"] for question in questions}
    parts = [("overall", "all", rows)]
    for name in dict.fromkeys(categories.values()):
        parts.append(("category", name, [row for row in rows if categories[row["question_id"]] == name]))
    for turn in sorted({row["turn"] for row in rows}):
        parts.append(("turn", str(turn), [row for row in rows if row["turn"] == turn]))
    return parts


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--questions", required=True, help="questions in FastChat's form (jsonl)")
    parser.add_argument("--policies", nargs="+", required=True, help="the policies' names")
    parser.add_argument("--judges", nargs="+", required=True, help="the judges' names")
    parser.add_argument(
        "--ratings", nargs="+", required=True, help="all of the first judge, of the second, … (jsonl)"
    )
    section.add(parser, "mt_bench", "bootstrap_samples")
    section.add(parser, "seed")
    parser.add_argument("--out", required=True, help="mean ratings (json)")
    parser.add_argument("--csv", required=True, help="the same as a tidy table")
    args = parser.parse_args(argv)
    pairs = [(judge, policy) for judge in args.judges for policy in args.policies]
    if len(pairs) != len(args.ratings):
        parser.error("--ratings: one for each of --judges and each of --policies")

    questions = fastchat.read_questions(args.questions)
    table = []
    for (judge, policy), path in zip(pairs, args.ratings, strict=True):
        rows = fastchat.read_ratings(path, questions, policy)
        for kind, value, part in slices(rows, questions):
            draw = seeds.derive(args.seed, "ratings", judge, policy, kind, value)
            found = summary(part, args.bootstrap_samples, draw)
            table.append({"judge": judge, "policy": policy, "slice": kind, "value": value, **found})
            if kind == "overall":
                if found["score"] is None:
                    raise InputError(
                        f"{path}: not one answer of {policy} has a rating; read what {judge} said"
                    )
                print(
                    f"{policy}, judge {judge}: {found['score']:.3f} [{found['ci_low']:.3f}, "
                    f"{found['ci_high']:.3f}] of 10 ({found['ratings']} ratings, {found['error']} errors)"
                )
    files.write_json(args.out, {"confidence": winrate.CONFIDENCE, "ratings": table})
    files.write_csv(args.csv, COLUMNS, table)


if __name__ == "__main__":
    errors.run(main)

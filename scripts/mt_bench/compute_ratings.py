"""Compute every policy's mean rating by judges that rate single answers: MT-Bench's score from 1 to 10.

As in FastChat's show_result, the mean is over the ratings of both turns; a rating that is an error (-1) is
left out and counted. Each mean has a 95 % interval (prefline/judging/winrate.py), which counts the turns of a
question as dependent. There are means by category and by turn.

Every two policies are compared question by question, with p values that are corrected for the number of
comparisons (prefline/judging/comparisons.py). The CSV has a row for each judge, policy and slice.

    python -m scripts.mt_bench.compute_ratings --questions data/mt_bench/question.jsonl \\
        --policies sft dpo-1 --judges hosted --ratings results/mt_bench/judgments/hosted/sft_single.jsonl \\
        results/mt_bench/judgments/hosted/dpo-1_single.jsonl \\
        --out results/mt_bench/ratings.json --csv results/mt_bench/ratings.csv
"""

from prefline import errors, files
from prefline.config import section
from prefline.errors import InputError
from prefline.judging import comparisons, fastchat, winrate
from prefline.text import verdicts

COLUMNS = ["judge", "policy", "slice", "value", "ratings", "error", "score", "ci_low", "ci_high"]
COLUMNS += ["p_value", "p_corrected"]


def scale(scores):
    """Return the lowest and the highest rating; FastChat's reading takes any number for one."""
    return min(verdicts.LOWEST, *scores), max(verdicts.HIGHEST, *scores)


def compared(rated):
    """Return the comparisons of a judge's ratings (list of dict). rated: {policy: rows}."""
    found = {
        policy: {(row["question_id"], row["turn"]): row["score"] for row in rows if row["score"] != -1}
        for policy, rows in rated.items()
    }
    return comparisons.of_ratings(
        found, *scale([score for some in found.values() for score in some.values()])
    )


def summary(rows):
    """Return {ratings, error, score, ci_low, ci_high} of some ratings; the last three may be None."""
    questions = {}
    for row in rows:
        if row["score"] != -1:
            questions.setdefault(row["question_id"], []).append(row["score"])
    scores = [score for some in questions.values() for score in some]
    found = {"ratings": len(scores), "score": None, "ci_low": None, "ci_high": None}
    if scores:
        low, high = winrate.mean_interval(list(questions.values()), *scale(scores))
        found |= {"score": sum(scores) / len(scores), "ci_low": low, "ci_high": high}
    return found | {"error": len(rows) - found["ratings"]}


def slices(rows, questions):
    """Return (slice, value, its rows) of a policy's ratings, overall first."""
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
    parser.add_argument("--out", required=True, help="mean ratings (json)")
    parser.add_argument("--csv", required=True, help="the same as a tidy table")
    args = parser.parse_args(argv)
    pairs = [(judge, policy) for judge in args.judges for policy in args.policies]
    if len(pairs) != len(args.ratings):
        parser.error("--ratings: one for each of --judges and each of --policies")

    questions = fastchat.read_questions(args.questions)
    table, rated = [], {}
    for (judge, policy), path in zip(pairs, args.ratings, strict=True):
        rows = fastchat.read_ratings(path, questions, policy)
        rated.setdefault(judge, {})[policy] = rows
        for kind, value, part in slices(rows, questions):
            found = summary(part)
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
    found = [{"judge": judge, **one} for judge, rows in rated.items() for one in compared(rows)]
    files.write_json(args.out, {"confidence": winrate.CONFIDENCE, "ratings": table, "comparisons": found})
    differences = [
        {**one, "slice": "difference", "value": one["other"], "score": one["difference"]} for one in found
    ]
    files.write_csv(args.csv, COLUMNS, table + differences)


if __name__ == "__main__":
    errors.run(main)

"""Compare length-controlled win rates with AlpacaEval's published ones, as a Markdown table.

Reads the annotations and the leaderboard of AlpacaEval 2 in a clone of github.com/tatsu-lab/alpaca_eval.
PENALTY of prefline/judging/verbosity.py was chosen by this: among several, it has the smallest mean error.

    python -m measurements.length_control ../alpaca_eval
"""

import csv
import json
from pathlib import Path

import numpy as np

from prefline.config import section
from prefline.errors import InputError
from prefline.judging import verbosity

ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"
LEADERBOARD = f"src/alpaca_eval/leaderboards/data_AlpacaEval_2/{ANNOTATOR}_leaderboard.csv"
PENALTIES = (1 / 805, 1 / 256, 1 / 128, 1 / 64, 1 / 32, 1 / 16)


def read(clone):
    """Return {model: (scores, differences, published win rate, published controlled rate)}, rates in percent.

    scores: float64 [n], 1 for a win of the model; differences: of characters.
    """
    with open(clone / LEADERBOARD, encoding="utf-8") as file:
        published = {row[""]: row for row in csv.DictReader(file)}
    found = {}
    for path in sorted(clone.glob(f"results/*/{ANNOTATOR}/annotations.json")):
        about = published.get(path.parent.parent.name)
        if about is None or not about["length_controlled_winrate"]:
            continue
        rows = [row for row in json.loads(path.read_text(encoding="utf-8")) if row["preference"] is not None]
        scores = np.array([row["preference"] - 1 for row in rows], dtype=np.float64)
        differences = [len(row["output_2"]) - len(row["output_1"]) for row in rows]
        if any(differences):  # the leaderboard's baseline compares with itself
            rates = float(about["win_rate"]), float(about["length_controlled_winrate"])
            found[about[""]] = scores, np.array(differences, dtype=np.float64), *rates
    return found


def main():
    parser = section.parser(__doc__)
    parser.add_argument("clone", type=Path, help="a clone of alpaca_eval with its results")
    models = read(parser.parse_args().clone)
    if not models:
        raise InputError("the clone has no annotations; take one with the files of `results`")
    print(f"{len(models)} models\n\n| PENALTY | mean error | largest error | of |\n|---|---|---|---|")
    none = {name: rate - wanted for name, (_, _, rate, wanted) in models.items()}
    rows = [("no length control", none)]
    for verbosity.PENALTY in PENALTIES:
        errors = {}
        for name, (scores, differences, _, wanted) in models.items():
            theta, _ = verbosity.fit(scores, differences)
            errors[name] = 100 / (1 + np.exp(-theta[0])) - wanted
        rows.append((f"1/{1 / verbosity.PENALTY:.0f}", errors))
    for name, errors in rows:
        worst = max(errors, key=lambda model: abs(errors[model]))
        mean = np.mean(np.abs(list(errors.values())))
        print(f"| {name} | {mean:.2f} | {abs(errors[worst]):.2f} | {worst} |")


if __name__ == "__main__":
    main()

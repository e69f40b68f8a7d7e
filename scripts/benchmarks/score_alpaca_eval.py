"""Win rates by AlpacaEval 2 from annotations, as the library computes them.

The length-controlled rate needs a file of the library's authors, df_gamed.csv. Without it the results contain
the command that gets it.

    python -m scripts.benchmarks.score_alpaca_eval --policy dpo-1 --benchmark alpaca \\
        --annotations results/benchmarks/alpaca/annotations/dpo-1.jsonl --judge judge \\
        --regression-data df_gamed.csv --out results/benchmarks/alpaca/dpo-1.json

    writes  win_rate, discrete_win_rate and length_controlled_win_rate, in percent
"""

import importlib.metadata
from pathlib import Path

from prefline import errors
from prefline.config import section
from prefline.data import benchmark_results
from prefline.errors import InputError

FETCH_REGRESSION = "hf download --repo-type dataset tatsu-lab/alpaca_eval df_gamed.csv --local-dir ."


def read_annotations(path, policy):
    """Return the annotations (list of dict) of a policy in a file of the library.

    Raises InputError where there are none, and where none holds a preference.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file of annotations")
    rows = [row for _, row in benchmark_results.read_list(path) if row.get("generator_2") == policy]
    if not rows:
        raise InputError(f"{path}: has no row whose generator_2 is {policy!r}")
    if all(row.get("preference") is None for row in rows):
        raise InputError(
            f"{path}: none of the {len(rows)} annotations of {policy!r} holds a preference; annotate with "
            "another judge or annotator"
        )
    return rows


def metrics(annotations, regression_data, settings):
    """Return (metrics, notes) of annotations (list of dict), as the library computes them.

    regression_data: path of df_gamed.csv, or None; notes (list of str) say what is left out, and why.
    """
    import pandas
    from alpaca_eval.metrics import get_winrate, glm_winrate

    found = get_winrate([{"preference": one.get("preference")} for one in annotations])
    n = found["n_total"]
    rows = [
        benchmark_results.metric("win_rate", found["win_rate"], found["standard_error"], n, settings),
        benchmark_results.metric("discrete_win_rate", found["discrete_win_rate"], None, n, settings),
    ]
    notes = []
    if n < len(annotations):
        notes.append(f"{len(annotations) - n} of {len(annotations)} annotations hold no preference")
    if regression_data is None:
        notes.append(
            "length-controlled win rate: left out, as the config names no regression_data; get df_gamed.csv "
            f"with: {FETCH_REGRESSION}"
        )
        return rows, notes
    known = pandas.read_csv(regression_data)["index"].nunique()
    if known != len(annotations):
        raise InputError(
            f"{regression_data}: is about {known} instructions, and {len(annotations)} are annotated; the "
            "length-controlled win rate is for AlpacaEval's own; set regression_data: null"
        )
    fetch = glm_winrate.hf_hub_download
    glm_winrate.hf_hub_download = lambda **_: regression_data  # the library knows the hub only
    try:
        found = glm_winrate.get_length_controlled_winrate(
            pandas.DataFrame(annotations), save_weights_dir=None
        )
    finally:
        glm_winrate.hf_hub_download = fetch
    rows.append(
        benchmark_results.metric(
            "length_controlled_win_rate",
            found["length_controlled_winrate"],
            found["lc_standard_error"],
            n,
            settings,
        )
    )
    return rows, notes


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--policy", required=True, help="the policy's name, generator_2 of its annotations")
    parser.add_argument("--benchmark", required=True, help="its name in the config")
    parser.add_argument("--annotations", required=True, help="in the library's form (json or jsonl)")
    section.add(parser, "benchmarks.NAME", "regression_data")
    parser.add_argument("--judge", help="the model that made the annotations; none: they say it")
    parser.add_argument("--out", required=True, help="results (json)")
    args = parser.parse_args(argv)

    if args.regression_data is not None and not Path(args.regression_data).is_file():
        raise InputError(f"{args.regression_data}: no such file; get it with: {FETCH_REGRESSION}")
    annotations = read_annotations(args.annotations, args.policy)
    settings = {"annotator": annotations[0].get("annotator"), "judge": args.judge}
    rows, notes = metrics(annotations, args.regression_data, settings)
    version = importlib.metadata.version("alpaca_eval")
    benchmark_results.write(args.out, args.policy, args.benchmark, "alpaca_eval", version, rows, notes)


if __name__ == "__main__":
    errors.run(main)

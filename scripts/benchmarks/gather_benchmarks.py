"""Gather the results of all benchmarks and policies into one tidy table.

One row for each number: policy, benchmark, metric, value, stderr, n (questions), library, version, settings
(JSON). A number that a library leaves undefined is empty.

    python -m scripts.benchmarks.gather_benchmarks --results results/benchmarks/*/*.json \\
        --out results/benchmarks/benchmarks.csv
"""

import json

from prefline import errors, files
from prefline.config import section

COLUMNS = ("policy", "benchmark", "metric", "value", "stderr", "n", "library", "version", "settings")


def table(results):
    """Return rows (dicts of COLUMNS) of `results` (list of dict of prefline.data.benchmark_results)."""
    return [
        {name: result[name] for name in ("policy", "benchmark", "library", "version")}
        | {name: one[name] for name in ("metric", "value", "stderr", "n")}
        | {"settings": json.dumps(one["settings"], sort_keys=True)}
        for result in results
        for one in result["metrics"]
    ]


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--results", nargs="+", required=True, help="results, in the table's order (json)")
    parser.add_argument("--out", required=True, help="table (csv)")
    args = parser.parse_args(argv)

    files.write_csv(args.out, COLUMNS, table([files.read_json(path) for path in args.results]))


if __name__ == "__main__":
    errors.run(main)

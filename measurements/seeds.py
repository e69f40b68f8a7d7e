"""Win rates of the default runs for several seeds, as a Markdown table.

Each seed makes everything anew, from the first weights to the verdicts, in a temporary copy of the working
tree, with the environment that runs this script.

    python -m measurements.seeds 1 2 3
"""

import json
import tempfile
from pathlib import Path

from measurements.default_run import copy_project, timed
from prefline.config import section


def winrates(seed):
    """(seconds, the parsed winrate.json) of the default config under `seed`."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "prefline"
        copy_project(directory)
        seconds = timed(directory, "snakemake", "results/winrate.json", "--config", f"seed={seed}")
        return seconds, json.loads((directory / "results/winrate.json").read_text(encoding="utf-8"))


def main():
    parser = section.parser(__doc__)
    parser.add_argument("seeds", type=int, nargs="+")
    args = parser.parse_args()
    print("| seed | policy | win | tie | loss | win_rate_adjusted | 95 % interval | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in args.seeds:
        seconds, winrate = winrates(seed)
        for policy, slices in winrate["win_rates"].items():
            overall = slices["overall"]
            print(
                f"| {seed} | {policy} | {overall['win']} | {overall['tie']} | {overall['loss']} "
                f"| {overall['win_rate_adjusted']:.3f} | {overall['ci_low']:.3f} to {overall['ci_high']:.3f} "
                f"| {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Show what an experiment cost, by rule and by run: hours of processors and GPUs, waiting, energy.

prefline/machine/costs.py explains the sources of the figures.

    python -m tools.costs --logs logs
"""

from prefline import errors
from prefline.config import section
from prefline.errors import InputError
from prefline.machine.costs import accounted, benchmarked, run_of, sacct, table, totals


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--logs", required=True, help="folder of Snakemake's logs and benchmark files")
    args = parser.parse_args(argv)

    jobs = benchmarked(args.logs)
    if not jobs:
        raise InputError(
            f"{args.logs}: has no benchmark file (*.tsv); jobs write them under logs/, and those of earlier "
            "versions under benchmarks/: name the folder that has them"
        )
    slurm = accounted(sacct() or "", ".")
    print(table("rule", totals(jobs, slurm, lambda job: job["rule"]), slurm))
    print()
    print(table("run", totals(jobs, [], run_of), []))


if __name__ == "__main__":
    errors.run(main)

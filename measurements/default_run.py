"""Time and memory of the default run, from nothing to the picture, and of a `snakemake -n` after it.

In a temporary copy of the working tree, with the environment that runs this script. Memory is the largest
resident set of any job, from Snakemake's own benchmark files.

    python -m measurements.default_run
"""

import csv
import os
import subprocess
import tempfile
import time
from pathlib import Path

from prefline.config import section


def copy_project(directory):
    """A clone of HEAD with the working tree's changes to tracked files."""
    subprocess.run(["git", "clone", "-q", ".", str(directory)], check=True)
    changes = subprocess.check_output(["git", "diff", "HEAD", "--binary"])
    if changes:
        subprocess.run(["git", "apply"], cwd=directory, input=changes, check=True)


def timed(directory, *command):
    """Seconds that `command` takes in `directory`; its output goes to a log file there."""
    start = time.perf_counter()
    with open(directory / "benchmark.log", "ab") as log:
        subprocess.run(command, cwd=directory, stdout=log, stderr=log, check=True)
    return time.perf_counter() - start


def jobs(directory):
    """[(seconds, largest resident set in MB, name)] of all jobs, longest first."""
    found = []
    for path in (directory / "logs").rglob("*.tsv"):
        with open(path, encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                memory = float(row["max_rss"]) if row["max_rss"] not in ("-", "NA") else 0.0
                found.append((float(row["s"]), memory, str(path.relative_to(directory / "logs"))))
    return sorted(found, reverse=True)


def main():
    section.parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "prefline"
        copy_project(directory)
        whole = timed(directory, "snakemake", "results/winrate.png")
        nothing = timed(directory, "snakemake", "-n", "results/winrate.png")
        found = jobs(directory)
    print(f"from nothing to results/winrate.png   {whole:7.1f} s on {os.cpu_count()} cores")
    print(f"snakemake -n when all is done         {nothing:7.1f} s")
    print(f"largest memory of a job               {max(memory for _, memory, _ in found):7.0f} MB")
    print(f"sum of the jobs' seconds              {sum(seconds for seconds, _, _ in found):7.1f} s")
    for seconds, memory, name in found:
        print(f"  {seconds:7.1f} s {memory:7.0f} MB  {name.removesuffix('.tsv')}")


if __name__ == "__main__":
    main()

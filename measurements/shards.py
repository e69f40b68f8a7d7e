"""Time and memory of `snakemake -n` and `dvc status` when everything is made, by the number of shards.

In a temporary clone of HEAD for each number. No model runs: every output is a small file with a record of its
own, as if it had come from `dvc pull`; what is measured is the bookkeeping. The shards are shared by the two
policies that the default config samples from, one prompt in each.

    python -m measurements.shards 10 100 1000 2000
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

PREPARE = """
import hashlib, sys
sys.path.insert(0, ".")
from pathlib import Path
from prefline.config import section
from prefline import files; from prefline.provenance import environments, records, workflow

def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()

with workflow.dag(forceall=True) as dag:
    persistence = dag.workflow.persistence
    for job in dag.jobs:
        inputs = {path: sha(path) for path in map(str, job.input) if path.startswith("results/")}
        compared = {
            "rule": job.rule.name,
            "input": persistence._input(job),
            "log": persistence._log(job),
            "shellcmd": job.shellcmd,
            "params": persistence._params(job),
            "code": persistence._code(job.rule),
            "record_format_version": 6,
            "container_img_url": None,
            "software_stack_hash": environments.NONE,
        }
        for output in map(str, job.output):
            path = Path(output)
            if path.suffix:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(output)
                made = sha(output)
            else:
                path.mkdir(parents=True, exist_ok=True)
                made = sha("")
            known = {path: sha for path, sha in inputs.items() if Path(path).suffix}
            record = {"sha256": made, "inputs": known, "data": {}, "seconds": 1.0, "packages": {}}
            record["snakemake"] = compared
            files.write_json(records.path_of(output), record)
"""


def run(directory, *command):
    """(seconds, largest memory in MB) of a command in `directory`."""
    with open(directory / "benchmark.log", "ab") as log:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    if status:
        sys.exit(f"{' '.join(command)} failed: {(directory / 'benchmark.log').read_text()[-2000:]}")
    return seconds, usage.ru_maxrss / 1024


def measure(shards, directory):
    """A row of the table."""
    subprocess.run(["git", "clone", "-q", ".", directory], check=True)
    config = yaml.safe_load((directory / "config.yaml").read_text())
    config["prompts"] |= {"num_prompts": shards // 2 - 1, "num_test_prompts": 1, "shard_size": 1}
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    run(directory, sys.executable, "-c", PREPARE)
    first = run(directory, "snakemake", "-n")
    plan = run(directory, "snakemake", "-n")
    run(directory, "dvc", "commit", "-f")
    status = run(directory, "dvc", "status")
    again = run(directory, "snakemake", "-n")
    said = (directory / "benchmark.log").read_text()
    assert said.count("Nothing to be done") == 3 and said.count("pipelines are up to date") == 1, said
    cells = [f"{seconds:.1f} s, {memory:.0f} MB" for seconds, memory in (first, plan, status, again)]
    return f"| {shards} | {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", type=int, nargs="+")
    args = parser.parse_args()
    print("| shards | `snakemake -n`, first time | `snakemake -n` | `dvc status` | `snakemake -n` after it |")
    print("|---|---|---|---|---|")
    for shards in args.shards:
        with tempfile.TemporaryDirectory() as temporary:
            print(measure(shards, Path(temporary) / "prefline"), flush=True)


if __name__ == "__main__":
    main()

"""What an experiment cost, by rule and by run: hours of processors and GPUs, waiting, energy.

Two sources, side by side, since neither knows all. The benchmark files that Snakemake writes have the time of
every job that succeeded last. Slurm's accounting, where `sacct` answers, has every job that was started from
this folder, those that failed or were preempted included, how long it waited, and its energy if the machines
measure it.
"""

import ast
import csv
import os
import re
import subprocess
from collections import defaultdict
from datetime import datetime
from pathlib import Path

from prefline.errors import InputError

JOULES_PER_KWH = 3.6e6
SACCT = (
    *("Comment", "WorkDir", "Submit", "Start"),
    *("ElapsedRaw", "CPUTimeRAW", "AllocTRES", "ConsumedEnergyRaw"),
)
OF_BENCHMARKS = ("jobs", "hours", "cpu_hours", "gpu_hours", "memory")
COLUMNS = {
    "jobs": "jobs",
    "hours": "hours",
    "cpu_hours": "CPU hours used",
    "gpu_hours": "GPU hours held",
    "memory": "most memory (MB)",
    "slurm_jobs": "Slurm jobs",
    "queue_hours": "hours in the queue",
    "slurm_cpu_hours": "CPU hours held",
    "slurm_gpu_hours": "GPU hours held, all tries",
    "energy": "energy (kWh)",
}


def benchmarked(folder):
    """{"rule", "policy", "hours", "cpu_hours", "gpu_hours", "memory"} (list of dicts) of each benchmark file.

    Raises InputError if a file is not of Snakemake's extended form.
    """
    found = []
    for path in sorted(Path(folder).rglob("*.tsv")):
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                if "rule_name" not in row:
                    raise InputError(
                        f"{path}: does not say which rule it is of; run Snakemake with benchmark-extended, "
                        "as the profiles have it, or delete the file"
                    )
                seconds = float(row["s"])
                resources = ast.literal_eval(row["resources"])
                found.append(
                    {
                        "rule": row["rule_name"],
                        "policy": policy_of(ast.literal_eval(row["wildcards"])),
                        "hours": seconds / 3600,
                        # "NA": the job was over before Snakemake looked.
                        "cpu_hours": _number(row["cpu_time"]) / 3600,
                        "gpu_hours": seconds * gpus(resources) / 3600,
                        "memory": _number(row["max_rss"]),
                    }
                )
    return found


def gpus(resources):
    """Number of GPUs (int) that a job's resources (dict) ask for, on all of its nodes."""
    if "gres" in resources:
        asked = re.findall(r"gpu(?::[a-zA-Z]\w*)?(?::(\d+))?", str(resources["gres"]))
        return sum(int(number or 1) for number in asked) * int(resources.get("nodes", 1))
    return int(resources.get("gpu", 0))


def policy_of(wildcards):
    """The policy that a job is for, by its wildcards (dict); None for what is common to all."""
    if "run" in wildcards:
        return f"{wildcards['run']}-{wildcards['iteration']}"
    return wildcards.get("policy")


def accounted(text, folder):
    """What Slurm knows of the jobs that Snakemake started in `folder`: list of dicts, likewise.

    text: what sacct prints for the fields of SACCT, separated by bars.
    """
    found = []
    for line in text.splitlines():
        values = dict(zip(SACCT, line.split("|"), strict=True))
        named = re.match(r"rule_(\w+?)(?:_wildcards_(.*))?$", values["Comment"])
        if named is None or os.path.realpath(values["WorkDir"]) != os.path.realpath(folder):
            continue
        held = re.search(r"gres/gpu=(\d+)", values["AllocTRES"])
        seconds = float(values["ElapsedRaw"] or 0)
        found.append(
            {
                "rule": named[1],
                "queue_hours": waited(values["Submit"], values["Start"]) / 3600,
                "slurm_cpu_hours": _number(values["CPUTimeRAW"]) / 3600,
                "slurm_gpu_hours": seconds * int(held[1] if held else 0) / 3600,
                "energy": _number(values["ConsumedEnergyRaw"]) / JOULES_PER_KWH,
            }
        )
    return found


def waited(submit, start):
    """Seconds from one of sacct's times to the other; 0 for a job that never started."""
    try:
        return (datetime.fromisoformat(start) - datetime.fromisoformat(submit)).total_seconds()
    except ValueError:
        return 0.0


def sacct():
    """What Slurm's accounting says of this user's jobs; None where there is no Slurm or no accounting."""
    flags = ["--allocations", "--parsable2", "--noheader", "--starttime=1970-01-02", "--duplicates"]
    try:
        process = subprocess.run(
            ["sacct", *flags, f"--format={','.join(SACCT)}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return process.stdout if process.returncode == 0 else None


def _number(text):
    try:
        return float(text)
    except ValueError:
        return 0.0


def totals(jobs, slurm, key):
    """{name: {column: number}} by the function `key` of a job, with the sum of all under "total"."""
    made = defaultdict(lambda: dict.fromkeys(COLUMNS, 0.0))
    for one, count in [*((job, "jobs") for job in jobs), *((job, "slurm_jobs") for job in slurm)]:
        for name in (key(one), "total"):
            made[name][count] += 1
            for column in COLUMNS.keys() & one.keys():
                value = one[column]
                made[name][column] = (
                    max(made[name][column], value) if column == "memory" else made[name][column] + value
                )
    return {name: made[name] for name in sorted(made, key=lambda name: (name == "total", str(name)))}


def table(title, rows, slurm):
    """The rows of `totals` as a table in Markdown; slurm: whether there is anything of Slurm's."""
    columns = [name for name in COLUMNS if slurm or name in OF_BENCHMARKS]
    lines = [
        f"| {title} | {' | '.join(COLUMNS[name] for name in columns)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for name, row in rows.items():
        values = [
            f"{row[column]:.0f}" if column in ("jobs", "slurm_jobs", "memory") else f"{row[column]:.3f}"
            for column in columns
        ]
        lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join(lines)


def run_of(job):
    """The run that a job is for: of the policy RUN-t, RUN; what runs share is "shared"."""
    policy = job["policy"]
    return "shared" if policy is None or "-" not in policy else policy.rsplit("-", 1)[0]

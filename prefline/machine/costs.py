"""Compute an experiment's costs, by rule and by run: CPU and GPU hours, queueing time, energy.

Neither of the two sources is complete. Snakemake's benchmark files have the time of each job's last
success. Slurm's accounting, if `sacct` answers, has every job that was started from this folder, failed and
preempted ones included, its queueing time, and its energy if the machines measure it.
"""

import ast
import csv
import os
import re
import subprocess
from collections import defaultdict
from datetime import datetime
from pathlib import Path

from prefline import policies
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
    """Return a dict for each benchmark file: rule, policy, hours, cpu_hours, gpu_hours, memory.

    Raises InputError if a file is not in Snakemake's extended form.
    """
    found = []
    for path in sorted(Path(folder).rglob("*.tsv")):
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                if "rule_name" not in row:
                    raise InputError(
                        f"{path}: names no rule; run Snakemake with benchmark-extended, as the profiles "
                        "do, or delete the file"
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
    """Return the number of GPUs (int) that a job's resources (dict) ask for, on all its nodes."""
    if "gres" in resources:
        asked = re.findall(r"gpu(?::[a-zA-Z]\w*)?(?::(\d+))?", str(resources["gres"]))
        return sum(int(number or 1) for number in asked) * int(resources.get("nodes", 1))
    return int(resources.get("gpu", 0))


def policy_of(wildcards):
    """Return the policy that a job is for, by its wildcards (dict); None for jobs that policies share."""
    if "run" in wildcards:
        return f"{wildcards['run']}-{wildcards['iteration']}"
    return wildcards.get("policy")


def accounted(text, folder):
    """Return Slurm's data on Snakemake's jobs in `folder`: list of dicts, as `benchmarked` gives them.

    text: sacct's output for the fields of SACCT, separated by bars.
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
    """Return seconds from one of sacct's times to the other; 0 for a job that never started."""
    try:
        return (datetime.fromisoformat(start) - datetime.fromisoformat(submit)).total_seconds()
    except ValueError:
        return 0.0


def sacct():
    """Return the output of Slurm's accounting for this user's jobs; None without Slurm or accounting."""
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
    """Return {name: {column: number}}, named by the function `key` of a job, with the sum as "total"."""
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
    """Return the rows of `totals` as a Markdown table; slurm: whether Slurm's accounting has data."""
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
    """Return the run that a job is for, with all its seeds, or "shared" for jobs that runs share."""
    policy = job["policy"]
    return "shared" if policy is None or "-" not in policy else policies.run_of(policy)

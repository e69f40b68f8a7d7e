"""Random SIGKILLs across the chain: does every restart end in the bytes of an undisturbed run?

The chain of --configfile runs once undisturbed, then again and again from nothing. At random moments one of
these is killed with SIGKILL, which nobody can handle:

    driver  Snakemake itself; its jobs must not go on behind its back
    job     the process of one script that runs at that moment
    group   Snakemake and everything that it started, as when a machine loses its power

Then the same command is given again, until the chain is through; no lock is removed by hand. What was made is
compared byte by byte: prompts, completions, rewards, pairs, reference log-probabilities, win rates.

    python -m measurements.reliability --kills 30 --seed 1 --configfile tests/workflow/quick.yaml
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from measurements.default_run import copy_project
from prefline import files
from prefline.config import section

KINDS = ("driver", "job", "group")
COMPARED = (
    "samples/*/prompts/*.parquet",
    "samples/*/completions/*.parquet",
    "samples/*/rewards/*/*.parquet",
    "samples/*/preferences.parquet",
    "samples/*/ref_logps/*/*.parquet",
    "winrate.json",
)
# Seconds between two kills: some while Snakemake starts, most while jobs run.
SHORTEST, LONGEST = 2.0, 25.0


def hashes(directory):
    """{path: sha256} of what is compared."""
    results = directory / "results"
    return {
        str(path.relative_to(results)): files.sha256(path)
        for pattern in COMPARED
        for path in sorted(results.glob(pattern))
    }


def start(directory, arguments):
    """Snakemake in a group of its own."""
    with open(directory / "reliability.log", "ab") as log:
        return subprocess.Popen(
            ["snakemake", *arguments], cwd=directory, stdout=log, stderr=log, start_new_session=True
        )


def scripts_of(driver):
    """The processes of the project's scripts that a driver (Popen) started: {process: name of the script}."""
    found = {}
    try:
        children = psutil.Process(driver.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return found
    for child in children:
        try:
            words = child.cmdline()
        except psutil.Error:
            continue
        names = [word for word in words if word.startswith("scripts.")]
        if names and Path(words[0]).name.startswith("python"):
            found[child] = names[0].rsplit(".", 1)[1]
    return found


def kill(driver, kind, draw):
    """Kill with SIGKILL; the scripts (list of str) that ran at that moment. Kinds: see the module."""
    running = scripts_of(driver)
    if kind == "group":
        os.killpg(driver.pid, signal.SIGKILL)
        for process in running:
            _kill(process)
    elif kind == "job" and running:
        _kill(draw.choice(sorted(running, key=lambda process: process.pid)))
    else:
        driver.kill()
    driver.wait()
    _, alive = psutil.wait_procs(list(running), timeout=60)
    if alive:
        sys.exit(f"outlived the Snakemake that started them: {[running[process] for process in alive]}")
    return sorted(running.values())


def _kill(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def disturbed(directory, arguments, kills, draw):
    """Run the chain to its end, killing it at most `kills` times; [(kind, scripts that ran)] of each kill."""
    made = []
    while True:
        driver = start(directory, arguments)
        pause = draw.uniform(SHORTEST, LONGEST) if len(made) < kills else None
        try:
            status = driver.wait(pause)
        except subprocess.TimeoutExpired:
            kind = KINDS[len(made) % len(KINDS)]
            made.append((kind, kill(driver, kind, draw)))
            continue
        if status == 0:
            return made
        sys.exit(f"undisturbed, and yet failed: see {directory}/reliability.log")


def main():
    parser = section.parser(__doc__)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True, help="of the moments")
    parser.add_argument("--configfile", required=True, help="overlay of config.yaml, from the root")
    args = parser.parse_args()

    draw, arguments = random.Random(args.seed), ["--configfile", args.configfile]
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Path(folder) / "undisturbed"
        copy_project(undisturbed)
        began = time.monotonic()
        disturbed(undisturbed, arguments, 0, draw)
        wanted, seconds = hashes(undisturbed), time.monotonic() - began
        print(f"undisturbed: {seconds:.0f} s, {len(wanted)} files to compare", flush=True)
        left, rounds, by_kind, by_script = args.kills, 0, Counter(), Counter()
        while left:
            directory = Path(folder) / f"round-{rounds}"
            copy_project(directory)
            made = disturbed(directory, arguments, left, draw)
            found = hashes(directory)
            differ = sorted(
                name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
            )
            print(
                f"round {rounds + 1}: {len(made)} kills, {len(differ)} files differ {differ[:3]}", flush=True
            )
            if differ:
                sys.exit(1)
            left, rounds = left - len(made), rounds + 1
            by_kind.update(kind for kind, _ in made)
            by_script.update(name for _, names in made for name in names or ["Snakemake alone"])
        print("\n| killed | times |\n|---|---:|")
        for name, count in by_kind.items():
            print(f"| {name} | {count} |")
        print("\n| at work at that moment | times |\n|---|---:|")
        for name, count in by_script.most_common():
            print(f"| {name} | {count} |")


if __name__ == "__main__":
    main()

"""Run a command with GPUs of this machine that no other job has: they are its own until it ends.

For jobs of a Snakemake that runs them on its own machine; under Slurm and other schedulers, which set the
devices, it runs the command as it is. A command that is given GPUs does not start where torch is a build for
CPUs. prefline/machine/gpus.py says how.

    python -m prefline.machine.lease_gpus 1 python -m scripts.generate.generate_completions …

The first word is the number of GPUs, the rest is the command.
"""

import os
import sys

from prefline import errors
from prefline.machine import gpus


def main():
    count, *command = sys.argv[1:]
    shared = gpus.POOL in os.environ
    pool = gpus.names(os.environ[gpus.POOL]) if shared else gpus.installed(os.environ)
    if int(count):
        gpus.check_torch(pool)
    if shared:
        devices = gpus.lease(int(count), pool)
        os.environ[gpus.VISIBLE] = ",".join(devices)
        if devices:
            print(f"on GPU {', '.join(devices)}", flush=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    errors.run(main)

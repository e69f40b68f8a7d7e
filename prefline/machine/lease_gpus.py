"""Run a command with GPUs of this machine that no other job uses until the command ends.

It is for jobs of a Snakemake that runs them on its own machine. Under Slurm and other schedulers, which set
the devices, it runs the unchanged command. A command whose torch or vLLM cannot use its GPUs does not start:
prefline/machine/device.py. When the command ends, so do all processes that it has started:
prefline/machine/descendants.py. prefline/machine/gpus.py explains leases.

    python -m prefline.machine.lease_gpus 1 python -m scripts.generate.generate_completions …

The first word is the number of GPUs, the rest is the command.
"""

import os
import sys

from prefline import errors
from prefline.machine import descendants, device, gpus


def main():
    count, *command = sys.argv[1:]
    shared = gpus.POOL in os.environ
    pool = gpus.names(os.environ[gpus.POOL]) if shared else gpus.installed(os.environ)
    devices = pool if int(count) else []
    device.refuse(devices)  # before it waits for any
    if shared:
        devices = gpus.lease(int(count), pool)
        os.environ[gpus.VISIBLE] = ",".join(devices)
        if devices:
            print(f"on GPU {', '.join(devices)}", flush=True)
    descendants.guard()  # before CUDA is opened, which the guard must not hold
    device.refuse(devices, opened=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    errors.run(main)

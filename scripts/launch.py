"""Start a training once, with one process for each device that its job was given, on one node or several.

The devices are those in CUDA_VISIBLE_DEVICES, which Slurm and scripts/common/gpus.py set; without any, the
training is one process on the CPU. Several nodes are those of the Slurm job around this process: torchrun is
started on each of them, and they meet at the first one. A process of its own for each device is what
transformers expects: one process that sees several devices would split its batches among them by threads.

    python -m scripts.launch scripts.train_policy --tokenized … (the training's own flags)
"""

import os
import subprocess
import sys

from scripts.common import errors, gpus

# Ports for a meeting of nodes; the job's number picks one, so that jobs that share a node keep apart.
FIRST_PORT, PORTS = 20000, 20000


def devices(environment):
    """Number of devices (int) that the job was given on this node."""
    return len(gpus.names(environment.get(gpus.VISIBLE, "")))


def nodes(environment):
    """Number of nodes (int) of the Slurm job around this process; 1 without one."""
    return int(environment.get("SLURM_JOB_NUM_NODES", "1"))


def command(words, environment, hosts):
    """The command line (list of str) that starts the module words[0] with the flags words[1:].

    environment: dict, as os.environ; hosts: function that gives the names of the job's nodes (list of str).
    """
    python = [sys.executable, "-m"]
    processes = max(devices(environment), 1)
    if nodes(environment) > 1:
        job = int(environment["SLURM_JOB_ID"])
        meeting = f"{hosts()[0]}:{FIRST_PORT + job % PORTS}"
        count = str(nodes(environment))
        return [
            # Beside the job's other steps: Snakemake itself runs in one that holds everything.
            *["srun", "--overlap", "--kill-on-bad-exit", "--nodes", count, "--ntasks", count],
            *["--ntasks-per-node", "1", *python, "torch.distributed.run", "--nnodes", count],
            *["--nproc-per-node", str(processes), "--rdzv-backend", "c10d", "--rdzv-endpoint", meeting],
            *["--rdzv-id", str(job), "-m", *words],
        ]
    if processes > 1:
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
        return [*python, *launcher, *words]
    return [*python, *words]


def slurm_hosts():
    """The names of the Slurm job's nodes (list of str)."""
    return subprocess.check_output(["scontrol", "show", "hostnames"], text=True).split()


def main():
    made = command(sys.argv[1:], os.environ, slurm_hosts)
    os.execvp(made[0], made)


if __name__ == "__main__":
    errors.run(main)

"""Start a training once, with one process for each device that its job was given, on one node or several.

The devices are those in CUDA_VISIBLE_DEVICES, which Slurm and scripts/common/gpus.py set; without any, the
training is one process on the CPU. The nodes are those of the Slurm job around this process: torchrun is
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
STEP = ("SLURM_", "SRUN_")


def command(words, environment, hosts):
    """The command line (list of str) that starts the module words[0] with the flags words[1:].

    environment: dict, as os.environ; hosts: the names of the job's nodes (list of str), if there are any.
    """
    python = [sys.executable, "-m"]
    processes = max(len(gpus.names(environment.get(gpus.VISIBLE, ""))), 1)
    if len(hosts) > 1:
        job, count = int(environment["SLURM_JOB_ID"]), str(len(hosts))
        meeting = f"{hosts[0]}:{FIRST_PORT + job % PORTS}"
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


def slurm_hosts(environment):
    """The names of the nodes (list of str) of the Slurm job around this process; none without one.

    Slurm is asked: what it says in the environment is of the step that Snakemake runs in, which has one node.
    """
    if "SLURM_JOB_ID" not in environment:
        return []

    def ask(*words):
        return subprocess.check_output(words, text=True).strip()

    nodes = ask("squeue", "--noheader", "--jobs", environment["SLURM_JOB_ID"], "--format=%N")
    return ask("scontrol", "show", "hostnames", nodes).split()


def of_the_job(environment):
    """`environment` (dict) without what Slurm says of the step around this process: srun would keep to it."""
    kept = ("SLURM_JOB_ID", "SLURM_CONF")
    return {name: value for name, value in environment.items() if name in kept or not name.startswith(STEP)}


def main():
    hosts = slurm_hosts(os.environ)
    made = command(sys.argv[1:], os.environ, hosts)
    os.execvpe(made[0], made, of_the_job(os.environ) if len(hosts) > 1 else os.environ)


if __name__ == "__main__":
    errors.run(main)

"""Start a training once, with one process for each device that its job was given, on one node or several.

The devices are those in CUDA_VISIBLE_DEVICES, which Slurm and prefline/machine/gpus.py set; without any, the
training is one process on the CPU. The nodes are those of the Slurm job around this process: torchrun is
started on each of them, and they meet at the first one. A process of its own for each device is what
transformers expects: one process that sees several devices would split its batches among them by threads.

How they share the work, a config file of `accelerate launch` says: profiles/accelerate/NAME.yaml. It reaches
the processes as `accelerate launch` would hand it to them, in their environment. (That command itself starts
one process, without a word, where it finds no GPU, and cannot ask Slurm which node it is on.)

    python -m prefline.machine.launch ddp scripts.train.train_policy \\
        --tokenized … (a file's name, a module, its own flags)
"""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from prefline import errors
from prefline.errors import InputError
from prefline.machine import gpus

CONFIGS = Path("profiles/accelerate")
# Ports for a meeting of nodes; the job's number picks one, so that jobs that share a node keep apart.
FIRST_PORT, PORTS = 20000, 20000
STEP = ("SLURM_", "SRUN_")
# Seconds that torchrun gives a checkpoint after SIGTERM, 30 by itself: what a large one takes. It waits as
# long for processes that one of them has left alone; a scheduler is mostly sooner.
SHUTDOWN = ["--shutdown-timeout", "600"]


def sharing(name):
    """What the processes' environment says (dict of str) of the config file of accelerate called `name`.

    Raises InputError where there is no such file.
    """
    path = CONFIGS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.yaml")))
        raise InputError(f"the resource `parallel` is {name!r}, but there is no {path}; known: {known}")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = {}
    for section, switch, prefix in (
        ("fsdp_config", "ACCELERATE_USE_FSDP", ""),
        ("deepspeed_config", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_"),
    ):
        for key, value in config.get(section, {}).items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            found |= {switch: "true", prefix + key.upper().removesuffix("_FLAG"): text}
    return found


def command(words, environment, hosts):
    """The command line (list of str) that starts the module words[0] with the flags words[1:].

    environment: dict, as os.environ; hosts: the names of the job's nodes (list of str), if there are any.
    """
    python = [sys.executable, "-m"]
    processes = devices(environment)
    if len(hosts) > 1:
        job, count = int(environment["SLURM_JOB_ID"]), str(len(hosts))
        meeting = f"{hosts[0]}:{FIRST_PORT + job % PORTS}"
        return [
            # Beside the job's other steps: Snakemake itself runs in one that holds everything.
            *["srun", "--overlap", "--kill-on-bad-exit", "--nodes", count, "--ntasks", count],
            *["--ntasks-per-node", "1", *python, "torch.distributed.run", *SHUTDOWN],
            *["--nnodes", count, "--nproc-per-node", str(processes), "--rdzv-backend", "c10d"],
            *["--rdzv-endpoint", meeting, "--rdzv-id", str(job), "-m", *words],
        ]
    if processes > 1:
        launcher = ["torch.distributed.run", *SHUTDOWN, "--standalone", "--nproc-per-node", str(processes)]
        return [*python, *launcher, "-m", *words]
    return [*python, *words]


def devices(environment):
    """How many processes a node gets (int): one for each device that it was given, at least one."""
    return max(len(gpus.names(environment.get(gpus.VISIBLE, ""))), 1)


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
    parallel, *words = sys.argv[1:]
    # Here, too: a job that asks Slurm for `gres` leases none.
    gpus.check_torch(gpus.names(os.environ.get(gpus.VISIBLE, "")))
    hosts = slurm_hosts(os.environ)
    made = command(words, os.environ, hosts)
    environment = of_the_job(os.environ) if len(hosts) > 1 else dict(os.environ)
    shared = sharing(parallel)
    if len(hosts) > 1 or devices(os.environ) > 1:
        environment |= shared
    os.execvpe(made[0], made, environment)


if __name__ == "__main__":
    errors.run(main)

"""Start a training once, with one process for each device that its job was given, on one node or several.

The devices are those in CUDA_VISIBLE_DEVICES, which Slurm and prefline/machine/gpus.py set; without any,
the training is one process on the CPU. The nodes are those of the Slurm job around this process; torchrun
starts on each node and connects to the first. The Trainer of transformers expects a separate process for
each device: one process with several devices would split its batches by threads.

A config file of `accelerate launch`, profiles/accelerate/NAME.yaml, sets how the processes share the work. It
reaches them through their environment, as from `accelerate launch`. (That command silently starts one process
if it finds no GPU, and cannot ask Slurm for its node.)

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
from prefline.machine import device, gpus

CONFIGS = Path("profiles/accelerate")
# Ports where nodes connect; the job's number picks one, so that jobs on one node use different ports.
FIRST_PORT, PORTS = 20000, 20000
STEP = ("SLURM_", "SRUN_")
# Keys of a config file that only say where weights are and how they move. No other is taken: `parallel` is a
# resource, which runs nothing again, so a file must not set a precision, a clipping or a batch.
LAYOUT = {
    *("fsdp_version", "fsdp_auto_wrap_policy", "fsdp_transformer_layer_cls_to_wrap", "fsdp_min_num_params"),
    *("fsdp_reshard_after_forward", "fsdp_sharding_strategy", "fsdp_offload_params", "fsdp_state_dict_type"),
    *("fsdp_cpu_ram_efficient_loading", "fsdp_sync_module_states", "fsdp_use_orig_params"),
    *("fsdp_backward_prefetch", "fsdp_forward_prefetch", "fsdp_activation_checkpointing"),
    *("zero_stage", "zero3_init_flag", "zero3_save_16bit_model", "offload_optimizer_device"),
    *("offload_param_device", "offload_optimizer_nvme_path", "offload_param_nvme_path"),
}
# Seconds that torchrun waits for a checkpoint after SIGTERM (default: 30), enough for a large one. It also
# waits this long for the other processes when one has ended; a scheduler usually kills sooner.
SHUTDOWN = ["--shutdown-timeout", "600"]


def sharing(name):
    """Return the environment variables (dict of str) for the accelerate config file called `name`.

    Raises InputError if there is no such file, or if it sets more than where weights are.
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
        for key, value in (config.get(section) or {}).items():
            if key not in LAYOUT:
                raise InputError(
                    f"{path}: {section}.{key} may change results, but {name!r} only says how devices share a "
                    "model; remove it, and set precision, batch and clipping in config.yaml"
                )
            text = str(value).lower() if isinstance(value, bool) else str(value)
            found |= {switch: "true", prefix + key.upper().removesuffix("_FLAG"): text}
    return found


def command(words, environment, hosts):
    """Return the command line (list of str) that starts the module words[0] with the flags words[1:].

    environment: dict, as os.environ; hosts: the names of the job's nodes (list of str), if there are any.
    """
    python = [sys.executable, "-m"]
    processes = devices(environment)
    if len(hosts) > 1:
        job, count = int(environment["SLURM_JOB_ID"]), str(len(hosts))
        meeting = f"{hosts[0]}:{FIRST_PORT + job % PORTS}"
        return [
            # --overlap, because the step in which Snakemake runs holds all of the job's resources.
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
    """Return the number of processes on a node (int): one for each of its devices, at least one."""
    return max(len(gpus.names(environment.get(gpus.VISIBLE, ""))), 1)


def slurm_hosts(environment):
    """Return the names of the nodes (list of str) of the Slurm job around this process; none without one.

    Asks Slurm, since its environment variables describe the step of Snakemake, which has one node.
    """
    if "SLURM_JOB_ID" not in environment:
        return []

    def ask(*words):
        return subprocess.check_output(words, text=True).strip()

    nodes = ask("squeue", "--noheader", "--jobs", environment["SLURM_JOB_ID"], "--format=%N")
    return ask("scontrol", "show", "hostnames", nodes).split()


def of_the_job(environment):
    """Return `environment` (dict) without the variables of this Slurm step, which srun would inherit."""
    kept = ("SLURM_JOB_ID", "SLURM_CONF")
    return {name: value for name, value in environment.items() if name in kept or not name.startswith(STEP)}


def main():
    parallel, *words = sys.argv[1:]
    # Check here, too: a job that asks Slurm for `gres` leases no GPU.
    device.refuse(gpus.names(os.environ.get(gpus.VISIBLE, "")))
    hosts = slurm_hosts(os.environ)
    made = command(words, os.environ, hosts)
    environment = of_the_job(os.environ) if len(hosts) > 1 else dict(os.environ)
    shared = sharing(parallel)
    if len(hosts) > 1 or devices(os.environ) > 1:
        environment |= shared
    os.execvpe(made[0], made, environment)


if __name__ == "__main__":
    errors.run(main)

# How jobs are run: which of them go first, which GPUs they get, how often they are tried, and what a killed Snakemake
# left behind.
#
# Rules that run a model say `gpu=1`; a profile or --set-resources says otherwise. On one machine the jobs
# share the GPUs it has, and with none they run on the CPU. Under a scheduler, which `jobs` or --jobs is for,
# they get what they ask for.

import os
import time

from snakemake.jobs import Job
from snakemake.logging import logger

from prefline.machine import faults, gpus, progress, slurm_jobs

STARTED = time.time()
# The files whose rules make policies.
MAKING = (
    "models",
    "models_train",
    "prompts",
    "generate",
    "rewards",
    "rank",
    "tokenize",
    "logps",
    "train",
    "train_online",
)

if "gpu" not in workflow.global_resources and workflow.global_resources["_nodes"].value is None:
    workflow.register_resource("gpu", len(gpus.installed(os.environ)))

# The next iteration waits for what makes a policy, and nothing for what looks at it: where there is room for
# one of them, answers to benchmarks can wait.
for each in workflow.rules:
    if Path(each.snakefile).stem in MAKING:
        each.priority = max(each.priority, 1)

# For `python -m tools.progress`.
RECORDER = progress.Recorder()
if workflow.is_main_process:
    logger.addHandler(RECORDER)

# `retries` is for the machine's faults. Snakemake asks a failed job how often it may be tried; it has no
# setting that tells failures apart.
Job.restart_times = property(
    lambda job: 0 if any(faults.final(log, STARTED) for log in job.log) else job.rule.restart_times
)


onstart:
    if os.path.isdir("results") and not os.access("results", os.W_OK):
        raise WorkflowError(
            "results/ cannot be written: read-only, or somebody else's; nothing was started"
        )
    if workflow.local_exec:
        gpus.share(os.environ)
    elif workflow.executor_plugin.name == "slurm":
        try:
            orphans = slurm_jobs.cancel(os.getcwd())
        except InputError as error:
            raise WorkflowError(str(error))
        if orphans:
            print(f"cancelled the jobs of a killed Snakemake: {', '.join(orphans)}", file=sys.stderr)
    RECORDER.begin()

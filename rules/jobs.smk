# Give jobs their GPUs, retry them, and clean up after a killed Snakemake.
#
# Rules that run a model ask for GPUs (rules/machine.smk). On one machine the jobs share its GPUs, or run on the CPU
# if there are none. Under a scheduler (with `jobs` or --jobs) they get as many as they ask for.

import os

from snakemake.dag import DAG
from snakemake.jobs import Job
from snakemake.logging import logger
from snakemake.scheduling.job_scheduler import JobScheduler

from prefline.machine import checks, device, faults, gpus, progress, slurm_jobs
from prefline.provenance import dvc_stages

SCHEDULED = workflow.global_resources["_nodes"].value is not None

if "gpu" not in workflow.global_resources and not SCHEDULED:
    workflow.register_resource("gpu", len(gpus.installed(os.environ)))

# Tell now what jobs would refuse later: a GPU that they cannot use (prefline/machine/lease_gpus.py).
IN_CONDA = "conda" in map(str, workflow.deployment_settings.deployment_method)
if workflow.is_main_process and workflow.global_resources.get("gpu").value != 0:
    try:
        about_gpus = device.at_start(IN_CONDA, SCHEDULED)
    except InputError as error:
        raise Refusal(str(error))
    if about_gpus:
        print(about_gpus, file=sys.stderr)

checks.notice_edits_after_ancient_files(DAG)
checks.refetch_alone(DAG, lambda job: job.rule.name == "fetch_model")


async def accept_dates(dag, job, outputs):
    """Accept outputs that seem older than inputs: next time, sync_records compares contents and sets the times."""


# Snakemake would delete what a job made from data with a date in the future, or by a clock that is behind.
DAG.check_output_mtime = accept_dates

# A failed job is shown once, with its command and its log, and not by a line of a rule file, too.
logger.addFilter(lambda record: "CalledProcessError in file" not in record.getMessage())

# For `python -m tools.progress`.
RECORDER = progress.Recorder()
if workflow.is_main_process:
    logger.addHandler(RECORDER)
    checks.hold_back(DAG, JobScheduler, refuse_what_does_not_fit, say_what_is_kept)

# `retries` is for the machine's faults. Snakemake asks a failed job how often it may be tried; it has no
# setting that tells failures apart.
Job.restart_times = property(
    lambda job: 0 if any(faults.final(log, STARTED) for log in job.log) else job.rule.restart_times
)


onstart:
    if os.path.isdir("results") and not os.access("results", os.W_OK):
        raise Refusal("results/ cannot be written: read-only, or somebody else's; nothing was started")
    if (
        workflow.local_exec or workflow.executor_plugin.name == "slurm"
    ):  # whose jobs have this environment
        try:
            check_keys(list(workflow.dag.needrun_jobs()))
            check_sampler(list(workflow.dag.needrun_jobs()))
        except InputError as error:
            raise Refusal(str(error))
    if "DVC_STAGE" in os.environ:
        try:
            dvc_stages.check_seen({str(path) for job in workflow.dag.jobs for path in job.input})
        except InputError as error:
            raise WorkflowError(str(error))
    if workflow.local_exec:
        gpus.share(os.environ)
    elif workflow.executor_plugin.name == "slurm":
        try:
            orphans = slurm_jobs.cancel(os.getcwd())
        except InputError as error:
            raise Refusal(str(error))
        if orphans:
            print(f"cancelled the jobs of a killed Snakemake: {', '.join(orphans)}", file=sys.stderr)
    plan.write(STARTED, CODE, PLANNED_CONFIG, OWN_CODE, RULES_HASH)
    RECORDER.begin()

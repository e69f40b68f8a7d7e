# Comparison of a plan with the machine's GPUs and disks, and with work/, before its first job starts.

from prefline.machine import disk
from prefline.provenance import kept_jobs
from snakemake.logging import logger


def written_by(job):
    """Return the disk.Job of a planned job; None for one that writes little."""
    if job.rule.name == "fetch_model":
        return disk.Job("fetch", job.wildcards.model)
    if job.rule.name == "generate_completions":
        return disk.Job("generate", job.wildcards.policy)
    does = "merge" if job.rule.name == "merge_adapter" else derive.ROWS in job.rule.resources and "train"
    trains = does and trained_by(job.wildcards)
    return disk.Job(does, models_read(job.input)["model"][0], trains) if trains else None


def refuse_what_does_not_fit(jobs):
    """Raise Refusal for planned jobs that the machine's GPUs or disks cannot hold.

    Prints a warning about jobs that may need more than machine.memory. A dry run, which may plan for another
    machine's disks, prints a warning about these, too.
    """
    planned = list(jobs)
    refuse_replacing(planned)
    refuse_too_large(planned)
    if sentence := capped():
        logger.warning(sentence)
    sentence = disk.trouble(disk.needed(config, filter(None, map(written_by, planned))))
    if sentence and workflow.dryrun:
        logger.warning(sentence)
    elif sentence:
        raise Refusal(sentence)


def keeps_work(job):
    """Return whether a job keeps its rows or its training in work/."""
    return bool(job.output) and ("--journal " in job.rule.shellcmd or derive.ROWS in job.rule.resources)


def say_what_is_kept(dag):
    """Print which planned jobs will find their rows or their training in work/."""
    if said := kept_jobs.table(kept_jobs.forecast(dag, workflow.persistence, HASHES, keeps_work)):
        logger.info(said)

# results/** <-> results/records/**: before the graph is built and after the run. Included last.

from snakemake.persistence import PersistenceBase

from prefline.machine import driver_lock
from prefline.provenance import records

# Snakemake compares a job with what made its outputs only if it knows that of all of them. So a fetched model would be
# kept where one is to be trained now, since training also has outputs that fetching does not have.
PersistenceBase.has_metadata = lambda self, job: any(self.metadata(path) for path in job.output)

ALONE = workflow.is_main_process and driver_lock.remove_stale_locks()


def sync_records():
    """Have Snakemake see what the files under results/ hold, and keep a record of what it has made."""
    if not ALONE:
        return
    try:
        records.sync(HASHES, workflow.deployment_settings.conda_prefix, IMAGES)
        records.check_known(
            (str(path) for path in Path("results").rglob("*") if not path.is_relative_to(records.RECORDS)),
            lambda path: any(rule.is_producer(path) for rule in workflow.rules),
        )
    except InputError as error:
        raise WorkflowError(str(error))


sync_records()


onsuccess:
    sync_records()


onerror:
    sync_records()

# Set the priorities, environments and images of all rules, which is why this file is included last. Compare
# results/** with results/records/** before the graph is built and after the run.

from snakemake.deployment.singularity import Singularity
from snakemake.persistence import PersistenceBase
from snakemake.persistence.file import FilePersistence
from snakemake.report.html_reporter import data as report_data

from prefline.machine import driver_lock
from prefline.provenance import dvc_stages, environments, imports, kept_jobs, leftovers, metadata, records
from prefline.reporting import snakemake_report

# The files whose rules make policies.
MAKING = (
    "checks",
    "checks_annotators",
    "checks_device",
    "checks_problems",
    "checks_rewards",
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

# Run jobs on the path to the next policy first; nothing depends on evaluations.
for each in workflow.rules:
    if Path(each.snakefile).stem in MAKING:
        each.priority = max(each.priority, 1)

# `snakemake --sdm conda` installs the CUDA build for a rule if any of its jobs gets a GPU (`raw` is None if a
# function sets the number), and the CPU build for the others. With `--sdm conda apptainer`, each rule runs in
# the image that has its environment (docs/containers.md). Without --sdm this changes nothing.
DEPLOYED = [each for each in workflow.rules if each.conda_env]

if workflow.global_resources.get("gpu").value != 0:
    for each in DEPLOYED:
        given = {name: resource.raw for name, resource in each.resources.items()}
        if given.get("gpu", 0) != 0 or given.get("gres"):
            each.conda_env = each.conda_env.replace("envs/cpu/", "envs/cuda/")

try:
    IMAGES = environments.images(
        workflow.deployment_settings.deployment_method,
        {Path(each.conda_env).parent.name for each in DEPLOYED},
    )
except InputError as error:
    raise Refusal(str(error))

if IMAGES:
    Singularity().check()  # or Snakemake would ask for a finished job's environment by the name `singularity`
    for each in DEPLOYED:
        each.container_img = IMAGES[Path(each.conda_env).parent.name]
        each.is_containerized = True

# Snakemake compares a job with the previous one only if it knows the previous job of all outputs. So a
# fetched model would stay when the config now trains it, since training also has outputs that fetching does
# not have. A rule without outputs, such as `all`, has none to know.
PersistenceBase.has_metadata = lambda self, job: (
    not job.output or any(self.metadata(path) for path in job.output)
)

# For `snakemake --report`.
snakemake_report.make_inert(report_data)


def is_made(path):
    """Return whether a path is the output of some rule."""
    return any(rule.is_producer(path) for rule in workflow.rules)


check_targets()


def sync_records():
    """Have Snakemake see what the files under results/ hold, and keep a record of what it has made.

    Returns the latest process that ran jobs here before (str); None if another one is running them.
    """
    if not workflow.is_main_process:
        return None
    latest = driver_lock.latest()
    with driver_lock.syncing() as other:
        if other is not None:
            print(f"another Snakemake ({other}) is running jobs in this folder", file=sys.stderr)
            return None
        kept_jobs.settle(HASHES)
        leftovers.drop_markers(HASHES)
        leftovers.drop_shells()
        if "DVC_STAGE" in os.environ and (swept := leftovers.sweep(is_made)):
            print(swept, file=sys.stderr)
        try:
            known = records.sync(HASHES, workflow.deployment_settings.conda_prefix, IMAGES)
            records.check_known(
                (
                    str(path)
                    for path in Path("results").rglob("*")
                    if not path.is_relative_to(records.RECORDS)
                ),
                is_made,
            )
        except InputError as error:
            raise Refusal(str(error))
    versions = records.other_versions(known)
    if versions:
        print(versions, file=sys.stderr)
    return latest


LATEST = sync_records()

if workflow.is_main_process:
    imports.save()
    metadata.mark_touched(FilePersistence, lambda: workflow.touch)
    kept_jobs.note_starts(PersistenceBase)
    driver_lock.hold_while_running(PersistenceBase, LATEST, Refusal)


onsuccess:
    sync_records()
    if workflow.is_main_process:
        dvc_stages.make_folders(is_made)


onerror:
    sync_records()
    if workflow.is_main_process:
        checks.show_failures(workflow.dag, skipped())

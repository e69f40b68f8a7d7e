# What has to see all rules, and so is included last: which jobs go first, their environments and images, and
# results/** <-> results/records/**, before the graph is built and after the run.

from snakemake.deployment.singularity import Singularity
from snakemake.persistence import PersistenceBase

from prefline.machine import driver_lock
from prefline.provenance import environments, records

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

# The next iteration waits for what makes a policy, and nothing for what looks at it: where there is room for
# one of them, answers to benchmarks can wait.
for each in workflow.rules:
    if Path(each.snakefile).stem in MAKING:
        each.priority = max(each.priority, 1)

# Which builds `snakemake --sdm conda` installs: a rule that gets a GPU has CUDA's, as has one that gets a GPU
# for some of its jobs (`raw` is None where a function says how many).
# With `--sdm conda apptainer`, each rule runs in the image that has its environment (docs/containers.md).
# Without --sdm this changes nothing.
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
    raise WorkflowError(str(error))

if IMAGES:
    Singularity().check()  # or Snakemake would ask for a finished job's environment by the name `singularity`
    for each in DEPLOYED:
        each.container_img = IMAGES[Path(each.conda_env).parent.name]
        each.is_containerized = True

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

# Which builds `snakemake --sdm conda` installs: a rule that gets a GPU has CUDA's, as has one that gets a GPU
# for some of its jobs (`raw` is None where a function says how many).
# With `--sdm conda apptainer`, each rule runs in the image that has its environment (docs/containers.md).
# Included last but for records.smk. Without --sdm this changes nothing.

from snakemake.deployment.singularity import Singularity

from prefline.provenance import environments

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

# Which builds `snakemake --sdm conda` installs: a rule that gets a GPU has CUDA's. Included last.
# Without --sdm conda this changes nothing.

if workflow.global_resources.get("gpu").value != 0:
    for each in workflow.rules:
        given = {name: resource.raw for name, resource in each.resources.items()}
        if each.conda_env and (given.get("gpu") or given.get("gres")):
            each.conda_env = each.conda_env.replace("envs/cpu/", "envs/cuda/")

# Which builds `snakemake --sdm conda` installs: a rule that is given a GPU, here or by a profile, gets CUDA's.
# Included last. Without --sdm conda this changes nothing.

for each in workflow.rules:
    given = {name: resource.raw for name, resource in each.resources.items()}
    if each.conda_env and (given.get("gpu") or given.get("gres")):
        each.conda_env = each.conda_env.replace("envs/cpu/", "envs/cuda/")

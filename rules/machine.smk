# Fit the resources of all rules to the machine: `machine` of the config comes before what follows from the models'
# sizes (prefline/machine/derived.py), and that before the rules' own values. --set-resources comes before all.
# No rule has any of this in its params, so that nothing runs again when it changes.


include: "functions/internet.smk"


import os

from snakemake.jobs import Job

from prefline.machine import node

MACHINE = node.described(MACHINE_SETTINGS, os.environ, workflow.global_resources.get("gpu").value)

try:
    node.check(
        MACHINE_SETTINGS["rules"],
        {each.name: set(each.resources) - {"_cores", "_nodes", "tmpdir"} for each in workflow.rules},
    )
    overwritten = workflow.resource_settings._parsed_overwrite_resources
    node.check_set({name: {key: of.raw for key, of in overwritten[name].items()} for name in overwritten})
except InputError as error:
    raise Refusal(str(error))

for each in workflow.rules:
    given = workflow.resource_settings._parsed_overwrite_resources.get(each.name, {})
    typed = node.settings(MACHINE_SETTINGS["rules"].get(each.name))
    own = {
        name: each.resources[name]
        for name in (*DERIVED, "endpoint", "gpu_memory_percent")
        if name in each.resources
    }
    for name, value in typed.items():
        if name not in given:
            each.resources[name] = per_attempt(value) if name == "mem_mb" else value
    # Of shards that share a job (profiles/grouped); `runtime` of the config or of --set-resources comes before.
    if "shard_runtime" in given and "runtime" not in {*typed, *given}:
        each.resources["runtime"] = given["shard_runtime"].raw
    fixed = {name: each.resources[name] for name in {*typed, *given} & {*own, "gres", "nodes"}}
    if "gpu" in own and (own["gpu"].raw != 0 or "gpu" in fixed):
        for name in own.keys() & set(DERIVED) - fixed.keys():
            each.resources[name] = derived(name, own, fixed)

# Without internet on the nodes, Snakemake runs jobs that need it itself.
if MACHINE_SETTINGS["internet"] == "login_node":
    Job.is_local = property(
        lambda job, queued=Job.is_local.fget: queued(job)
        or (job.rule.group is None and needs_internet(job.rule, job.wildcards))
    )

# Which GPUs jobs get. Rules that run a model say `gpu=1`; a profile or --set-resources says otherwise.
#
# On one machine the jobs share what it has, and with no GPU they run on the CPU. Under a scheduler, which
# `jobs` or --jobs is for, they get what they ask for.

from scripts.common import gpus

if "gpu" not in workflow.global_resources and workflow.global_resources["_nodes"].value is None:
    workflow.register_resource("gpu", len(gpus.installed(os.environ)))


onstart:
    if workflow.local_exec:
        gpus.share(os.environ)

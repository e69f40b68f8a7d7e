"""Change every value of config.yaml in turn, in a folder where all is made; print what each engine would run.

One JSON line for each value: {"value": dotted key, "predicted": jobs, "snakemake": jobs, "dvc": stages}.
Run in that folder: `python tests/workflow/mutate.py`.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, os.getcwd())

import yaml
from dvc.repo import Repo
from snakemake.utils import update_config

from prefline.provenance import workflow
from tools import write_reruns


def dirty(overlay, config, repo):
    """Stages that `dvc repro` would run."""
    edited = json.loads(json.dumps(config))
    update_config(edited, overlay)
    Path("config.yaml").write_text(yaml.safe_dump(edited, sort_keys=False))
    return set(repo.status())


def main():
    config = yaml.safe_load(Path("config.yaml").read_text())
    graph = workflow.jobs()
    with Repo() as repo:
        # One other value of each: what there is in the file, without all that a run could override.
        edits = {path: overlay for path, overlay in workflow.edits() if write_reruns.has(config, path)}
        for path, overlay in {(): {}, **edits}.items():
            with workflow.dag(overlay) as dag:
                after = workflow.jobs_of(dag)
                planned = {str(job.output[0]) for job in dag.jobs if job.output and dag.needrun(job)}
            changed = workflow.changed(graph, after)
            seen = {
                "predicted": sorted(workflow.downstream(changed, after)),
                "snakemake": sorted(planned),
                "dvc": sorted(dirty(overlay, config, repo)),
            }
            Path("config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
            print(json.dumps({"value": ".".join(path), **seen}), flush=True)


if __name__ == "__main__":
    main()

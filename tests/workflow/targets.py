"""Print what all jobs make, what each named target asks for, and what each stage of DVC's would make.

It is given overlays of config.yaml, each a line of JSON, and prints a line for each: {"made": outputs of all
jobs, "targets": {name: files}, "stages": {name: [outputs of its jobs, outputs of what its command runs from
nothing]}}. Run in a folder of the project: `python tests/workflow/targets.py <<< '{}'`.
"""

import json
import os
import shlex
import sys
from collections import defaultdict

sys.path.insert(0, os.getcwd())

from prefline.provenance import workflow
from tools import describe_workflow


def outputs(jobs):
    return sorted({path for job in jobs for path in job.outputs})


def run_by(command, graph, targets):
    """The jobs that a stage's command runs, if only what its rules do not make is there."""
    allowed, asked = map(shlex.split, command.removeprefix("snakemake --allowed-rules ").split(" -- "))
    makers = {path: job for job in graph.values() for path in job.outputs if job.rule in allowed}
    waiting = [path for target in asked for path in targets.get(target, [target])]
    found = {}
    while waiting:
        job = makers.get(waiting.pop())
        if job and job.outputs not in found:
            found[job.outputs] = job
            waiting += job.inputs
    return found.values()


def main():
    for overlay in map(json.loads, sys.stdin):
        with workflow.dag(overlay, forceall=True) as dag:
            graph = workflow.jobs_of(dag)
            named = [rule for rule in dag.workflow.rules if not rule.output and rule.name != "all"]
            targets = {rule.name: sorted(map(str, rule.input)) for rule in named}
        jobs = defaultdict(list)
        for job in graph.values():
            jobs[describe_workflow.stage_of(job)].append(job)
        stages = {
            name: [outputs(jobs[name]), outputs(run_by(stage["cmd"], graph, targets))]
            for name, stage in describe_workflow.stages_of(graph, {}).items()
        }
        print(json.dumps({"made": outputs(graph.values()), "targets": targets, "stages": stages}), flush=True)


if __name__ == "__main__":
    main()

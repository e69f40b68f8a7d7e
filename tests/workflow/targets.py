"""Print what all jobs make, what each named target asks for, and what is made for it.

It is given overlays of config.yaml, each a line of JSON, and prints a line for each: {"made": outputs of all
jobs, "targets": {name: files}, "for": {name: outputs of the jobs that its files need}}. Run in a folder of
the project: `python tests/workflow/targets.py <<< '{}'`.
"""

import json
import os
import sys

sys.path.insert(0, os.getcwd())

from prefline.provenance import workflow


def needed(paths, graph):
    """The outputs of the jobs that make `paths`, and of those before them."""
    makers = {path: job for job in graph.values() for path in job.outputs}
    waiting, found = list(paths), set()
    while waiting:
        job = makers.get(waiting.pop())
        if job and job.outputs[0] not in found:
            found.update(job.outputs)
            waiting += job.inputs
    return sorted(found)


def main():
    for overlay in map(json.loads, sys.stdin):
        with workflow.dag(overlay, forceall=True) as dag:
            graph = workflow.jobs_of(dag)
            named = [rule for rule in dag.workflow.rules if not rule.output and rule.name != "all"]
            targets = {
                rule.name: sorted(map(str, rule.input))
                for rule in named
                if not any(map(callable, rule.input))
            }
        made = sorted({path for job in graph.values() for path in job.outputs})
        wanted = {name: needed(paths, graph) for name, paths in targets.items()}
        print(json.dumps({"made": made, "targets": targets, "for": wanted}), flush=True)


if __name__ == "__main__":
    main()

"""Write what follows from the workflow itself: dvc.yaml, and the table of what runs again after an edit.

A stage of dvc.yaml is what one file under rules/ does for one policy or model. Its command has Snakemake run
the rules of that file and no others; Snakemake decides which jobs. So a stage that DVC runs once too often
costs a second, and what a stage depends on is never listed by hand: every value of the config is changed in
turn, and the jobs that become others are the answer. DVC keeps a stage's files (`persist`), each beside its
record (prefline/provenance/records.py), by which Snakemake knows in a clone, too, what they were made from.

    python -m tools.describe_workflow --dvc dvc.yaml --reruns docs/reruns.md
"""

import shlex
from collections import defaultdict
from pathlib import Path

import yaml

from prefline import errors, files
from prefline.config import section
from prefline.provenance import imports, records, workflow

# Rule files whose functions and values all others use.
SHARED = ("rules/common.smk", *(str(path) for path in sorted(Path("rules/functions").glob("*.smk"))))
# Wildcards that number the pieces of one artifact: DVC tracks the folder that holds the pieces.
PIECES = ("shard", "part")
METRICS = ("metrics.json", "winrate.json", "drift.json")
CURVES = "log.csv"
PICTURES = ("winrate.png", "rewards.png", "training.png", "drift.png")


def stage_of(job):
    """Name of the stage of a workflow.Job: the file its rule stands in, and what it is about."""
    about = [value for name, value in job.wildcards if name not in (*PIECES, "judge", "reward")]
    return "-".join([job.section, *about])


def whole(path, job):
    """The path that DVC tracks for an output of `job`: the folder where it is one piece of many."""
    return str(Path(path).parent) if any(name in PIECES for name, _ in job.wildcards) else path


def stages_of(graph, edited):
    """The stages section of dvc.yaml (dict).

    graph: {name: Job}; edited: {path of a config value: {name: Job} of those that change with it}.
    """
    made_as = {path: whole(path, job) for job in graph.values() for path in job.outputs}
    grouped = defaultdict(list)
    for job in graph.values():
        if job.rule != "all":
            grouped[stage_of(job)].append(job)
    keys = defaultdict(set)
    for path, jobs in edited.items():
        for job in jobs.values():
            # A choice decides which other values count: with one, the whole section does.
            keys[stage_of(job)].add(path[:-1] if workflow.is_choice(path) else path)
    config = yaml.safe_load(workflow.CONFIG.read_text(encoding="utf-8"))
    return {
        name: _stage(name, grouped[name], made_as, covering(keys[name], edited, config))
        for name in sorted(grouped)
    }


def covering(wanted, known, config):
    """Dotted keys of `config` that stand for `wanted` (paths of values or sections), no more than needed.

    known: all paths there are; a section stands for its values if all of them are wanted. A path that the
    config does not have counts as the section that could hold it.
    """
    found = set()
    for path in wanted:
        while not has(config, path):
            path = path[:-1]
        for length in range(1, len(path)):
            if all(other in wanted for other in known if other[:length] == path[:length]):
                path = path[:length]
                break
        found.add(path)
    return sorted(".".join(path) for path in found if not any(path[:n] in found for n in range(1, len(path))))


def has(config, path):
    """Whether there is a value at `path` (tuple of keys) of the config."""
    for key in path:
        if not isinstance(config, dict) or key not in config:
            return False
        config = config[key]
    return True


def _stage(name, jobs, made_as, keys):
    made = {path for job in jobs for path in job.outputs}
    read = {path for job in jobs for path in job.inputs}
    outputs = sorted({made_as[path] for path in made})
    inputs = {made_as.get(path, path) for path in read} - set(outputs)
    # A model's manifest stands for its directory.
    inputs = {path for path in inputs if f"{path}.json" not in inputs}
    rules = sorted({job.rule for job in jobs})
    inputs |= {*SHARED, *(f"rules/{job.section}.smk" for job in jobs)}
    inputs |= {module for job in jobs for module in imports.modules_of(job.script)}
    pieces = {made_as[path] for path in made if made_as[path] != path}
    targets = sorted(path for path in made - read if made_as[path] == path)
    if not targets:  # the number of pieces is no matter of the stage: a rule of its name stands for all
        targets = [name.replace("-", "_")]
        rules += targets
    stage = {
        "cmd": f"snakemake --allowed-rules {shlex.join(rules)} -- {shlex.join(targets)}",
        "deps": sorted(inputs),
    }
    if keys:
        stage["params"] = [{"config.yaml": keys}]
    notes = [str(records.RECORDS / Path(path).relative_to(records.RESULTS)) for path in pieces]
    notes += [str(records.path_of(path)) for path in outputs if path not in pieces]
    kept = {"persist": True}
    curve = {**kept, "x": "step", "y": "loss"}
    kinds = (
        ("outs", [(path, kept) for path in outputs if Path(path).name not in (*METRICS, CURVES, *PICTURES)]),
        ("metrics", [(path, kept) for path in outputs if Path(path).name in METRICS]),
        ("plots", [(path, curve) for path in outputs if Path(path).name == CURVES]),
        ("plots", [(path, kept) for path in outputs if Path(path).name in PICTURES]),
        ("outs", [(path, kept) for path in sorted(notes)]),
    )
    for kind, entries in kinds:
        if entries:
            stage.setdefault(kind, []).extend({path: options} for path, options in entries)
    return stage


INTRODUCTION = """# What runs again

Made by `make dvc.yaml` from the workflow itself: each value of `config.yaml` was changed in turn. The jobs
that became others are *itself*, what is made from their results is *what follows*; numbers count jobs of the
default config. A value without any shapes nothing there: a run overrides it, or nothing there uses it.

Jobs that sample, score, judge or sum log-probabilities find what was done before in their journals and
compute only what is new; a training that was done before is taken from where it was kept.
"""


def reruns(graph, edited):
    """The tables (Markdown): for each value of the config and each module, the rules that run again."""
    config = yaml.safe_load(workflow.CONFIG.read_text(encoding="utf-8"))
    alike = defaultdict(list)
    for path, jobs in edited.items():
        if has(config, path):
            alike[frozenset(jobs)].append(path)
    rows = [
        (
            ", ".join(
                f"`{key}`" for key in covering(paths, [*filter(lambda p: has(config, p), edited)], config)
            ),
            names,
        )
        for names, paths in alike.items()
    ]
    users = defaultdict(set)
    for name, job in graph.items():
        for module in imports.modules_of(job.script) if job.rule != "all" else ():
            users[module].add(name)
    shared = defaultdict(list)
    for module, names in sorted(users.items()):
        shared[frozenset(names)].append(f"`{module.removeprefix('scripts/')}`")
    code = [(", ".join(modules), names) for names, modules in shared.items()]
    return "\n".join([INTRODUCTION, *_table("value", rows, graph), "", *_table("code", code, graph), ""])


def _table(title, rows, graph):
    lines = [f"| {title} | itself | what follows |", "|---|---|---|"]
    for label, names in rows:
        direct = {name for name in names if name in graph}
        following = workflow.downstream(direct, graph) - direct
        lines.append(f"| {label} | {_counted(names, graph)} | {_counted(following, graph)} |")
    return lines


def _counted(names, graph):
    """ "3 generate_completions, 1 train_policy" for the jobs `names`; those not in `graph` are new."""
    counts, new = defaultdict(int), len([name for name in names if name not in graph])
    for name in names:
        if name in graph and graph[name].rule != "all":
            counts[graph[name].rule] += 1
    parts = [f"{number} {rule}" for rule, number in sorted(counts.items())]
    return ", ".join(parts + ([f"{new} new"] if new else [])) or "nothing"


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--dvc", required=True, help="dvc.yaml to write")
    parser.add_argument("--reruns", required=True, help="table to write (Markdown)")
    args = parser.parse_args(argv)
    graph, edited = workflow.jobs(), defaultdict(dict)
    for path, overlay in workflow.edits():
        after = workflow.jobs(overlay)
        names = workflow.changed(graph, after)
        edited[path] |= {name: graph.get(name) or after[name] for name in names}
    yaml.SafeDumper.ignore_aliases = lambda *_: True
    text = yaml.safe_dump({"stages": stages_of(graph, edited)}, sort_keys=False, width=110)
    files.write_text(args.dvc, f"# Made by `make dvc.yaml` from the workflow; edit that instead.\n{text}")
    files.write_text(args.reruns, reruns(graph, edited))


if __name__ == "__main__":
    errors.run(main)

"""Write docs/reruns.md: the jobs that run again after an edit of a config value or a module.

Each value of the config is changed in turn, and the workflow is built again; the jobs that differ depend on
the value. Of several runs with the same keys, only the first is edited.

    python -m tools.write_reruns --out docs/reruns.md
"""

from collections import defaultdict

import yaml

from prefline import errors, files
from prefline.config import section
from prefline.provenance import imports, workflow

INTRODUCTION = """# What each config value runs again

After this page you know which jobs an edit of a config value or a module runs again. `snakemake -n` prints
the same for your own edit.

All counts are for `snakemake` with the default config. The first column has the jobs that use the value
itself, the second those that use their results. "Nothing" means that no job of the default uses the value: a
run overrides it, another method has it, or the default has nothing of the kind. A judge on a server, for
example, is not in the default: in your config, a change of its `model` asks and pays for every question again
([endpoints.md](endpoints.md)).

Jobs that sample, score, judge or compute log-probabilities compute only rows that are not cached. A training
that was done before is not repeated ([how reruns work](edits.md)).

The tables below have every value and every module. `make reruns` writes this page: it changes each value in
turn and compares the workflow's jobs.
"""
# {section: where an edit begins to run again}.
STEPS = {
    "`prompts`": "`prepare_prompts`, or the shards that changed",
    "`generate`": "`generate_completions`",
    "`rewards`": "the scores of that reward; `build_preferences` for `weight` and `normalize`",
    "`rank`": "`build_preferences`",
    "`tokenize`, `logps`": "`tokenize_preferences`, `compute_ref_logps`",
    "`train`, a run": "the trainings that use the value",
    "`mt_bench`": "`answer_mt_bench`, or the judge's rule",
    "`machine`": "nothing",
}


def covering(wanted, known, config):
    """Return the fewest dotted keys of `config` that cover `wanted` (paths of values or sections).

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
    """Return whether there is a value at `path` (tuple of keys) of the config."""
    for key in path:
        if not isinstance(config, dict) or key not in config:
            return False
        config = config[key]
    return True


def reruns(graph, edited):
    """Return the tables (Markdown): the rules that run again for each config value and each module."""
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
    values, modules = _table("config value", rows, graph), _table("module", code, graph)
    steps = ["| an edit of | begins to run again at |", "|---|---|"]
    steps += [f"| {section} | {step} |" for section, step in STEPS.items()]
    return "\n".join([INTRODUCTION, *steps, "\n## Config values\n", *values, "\n## Modules\n", *modules, ""])


def _table(title, rows, graph):
    lines = [f"| {title} | changed jobs | jobs that follow |", "|---|---|---|"]
    for label, names in rows:
        direct = {name for name in names if name in graph}
        following = workflow.downstream(direct, graph) - direct
        lines.append(f"| {label} | {_counted(names, graph)} | {_counted(following, graph)} |")
    return lines


def _counted(names, graph):
    """Return  "3 generate_completions, 1 train_policy" for the jobs `names`; those not in `graph` are new."""
    counts, new = defaultdict(int), len([name for name in names if name not in graph])
    for name in names:
        if name in graph and graph[name].rule != "all":
            counts[graph[name].rule] += 1
    parts = [f"{number} {rule}" for rule, number in sorted(counts.items())]
    return ", ".join(parts + ([f"{new} new"] if new else [])) or "nothing"


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--out", required=True, help="page to write (Markdown)")
    args = parser.parse_args(argv)
    graph, edited = workflow.jobs(), defaultdict(dict)
    for path, overlay in workflow.edits():
        after = workflow.jobs(overlay)
        names = workflow.changed(graph, after)
        edited[path] |= {name: graph.get(name) or after[name] for name in names}
    files.write_text(args.out, reruns(graph, edited))


if __name__ == "__main__":
    errors.run(main)

"""Write the tables of docs/reruns.md: the jobs that run again after an edit of a config value or a module.

Each value of the config is changed in turn, and the workflow is built again; the jobs that differ depend on
the value. Of several runs with the same keys, only the first is edited. The page's part before the tables is
written by hand.

    python -m tools.write_reruns --out docs/reruns.md
"""

from collections import defaultdict
from pathlib import Path

import yaml

from prefline import errors, files
from prefline.config import section
from prefline.provenance import imports, workflow

PAGE = Path("docs/reruns.md")
MARK = "<!-- make reruns -->"
# The columns of counts: {title: rules}.
COUNTED = {
    "train": ("pretrain", "train_sft", "train_reward_model", "train_policy"),
    "sample": ("generate_completions",),
    "score": ("score_completions",),
    "answer": ("answer_mt_bench",),
    "judge": ("judge_mt_bench",),
}
# They show most of the config, so most edits run them again; rows with other rules do not name them.
CARDS = ("write_report", "write_model_card")
NEW = "new"


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


def place(key, config):
    """Return where a dotted key is in the config, to sort by: list of int."""
    found = []
    for part in key.split("."):
        found.append(list(config).index(part))
        config = config[part]
    return found


def reruns(graph, edited):
    """Return the tables (Markdown): the rules that run again for each config value and each module."""
    config = yaml.safe_load(workflow.CONFIG.read_text(encoding="utf-8"))
    alike = defaultdict(list)
    for path, jobs in edited.items():
        if has(config, path):
            alike[frozenset(jobs)].append(path)
    known = [path for path in edited if has(config, path)]
    values = {key: names for names, paths in alike.items() for key in covering(paths, known, config)}
    users = defaultdict(set)
    for name, job in graph.items():
        for module in imports.modules_of(job.script) if job.rule != "all" else ():
            users[module].add(name)
    shared = defaultdict(list)
    for module, names in sorted(users.items()):
        shared[frozenset(names)].append(module.removeprefix("scripts/"))
    return tables(
        [([key], *_jobs(values[key], graph)) for key in sorted(values, key=lambda key: place(key, config))],
        [(modules, *_jobs(names, graph)) for names, modules in shared.items()],
    )


def tables(values, modules):
    """Return both tables (Markdown); each a list of (names, jobs that use them, jobs that follow).

    Jobs are {rule: number}.
    """
    titles = [*COUNTED, "all jobs"]
    lines = []
    for heading, title, rows in (
        ("Config values", "config value", values),
        ("Modules, for contributors", "module", modules),
    ):
        lines += [f"## {heading}", "", _line(title, "jobs that use it", *titles)]
        lines.append(_line("---", "---", *["---:"] * len(titles)))
        lines += [_line(", ".join(f"`{name}`" for name in names), *_cells(*jobs)) for names, *jobs in rows]
        lines.append("")
    return "\n".join(lines)


def _line(*cells):
    return f"| {' | '.join(cells)} |"


def _jobs(names, graph):
    """Return the jobs `names` and those that follow them, each as {rule: number}; NEW are not in `graph`."""
    direct = {name for name in names if name in graph}
    following = workflow.downstream(direct, graph) - direct
    return _counted(names, graph), _counted(following, graph)


def _counted(names, graph):
    counts = defaultdict(int)
    for name in sorted(names):
        rule = graph[name].rule if name in graph else NEW
        counts[rule] += rule != "all"
    return {rule: number for rule, number in counts.items() if number}


def _cells(direct, following):
    """Return the cells of a row (list of str): the rules that use a value, then numbers of jobs in all."""
    rules = sorted(direct.keys() - {NEW, *CARDS}) or sorted(direct.keys() & {*CARDS})
    named = [f"{direct[rule]} {rule}" if direct[rule] > 1 else rule for rule in rules]
    named += [f"{direct[NEW]} new"] if NEW in direct else []
    numbers = [
        sum(jobs.get(rule, 0) for jobs in (direct, following) for rule in of) for of in COUNTED.values()
    ]
    numbers.append(sum(direct.values()) + sum(following.values()))
    return [", ".join(named) or "none", *(str(number or "") for number in numbers)]


def page(made):
    """Return the page (str): what is written by hand, and `made`, its new tables."""
    return f"{PAGE.read_text(encoding='utf-8').split(MARK)[0]}{MARK}\n\n{made}"


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--out", required=True, help="page to write (Markdown)")
    args = parser.parse_args(argv)
    graph, edited = workflow.jobs(), defaultdict(dict)
    for path, overlay in workflow.edits():
        after = workflow.jobs(overlay)
        names = workflow.changed(graph, after)
        edited[path] |= {name: graph.get(name) or after[name] for name in names}
    files.write_text(args.out, page(reruns(graph, edited)))


if __name__ == "__main__":
    errors.run(main)

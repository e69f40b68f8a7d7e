"""Gather the report's contents from the files under results/, as plain lists and dicts."""

import base64
import csv
import json
import re
from pathlib import Path

import networkx

from prefline import policies

# Columns of the table of trainings: of metrics.json, and how a number is shown.
WORK = {
    "train_steps": "{:,.0f}",
    "train_tokens": "{:,.0f}",
    "train_tokens_per_second": "{:,.0f}",
    "train_runtime": "{:,.0f} s",
    "peak_memory_mb": "{:,.0f} MB",
}
MEASURES = ("loss", "rewards/margins", "rewards/accuracies", "reward", "kl")
POSITIONS = ("consistency", "biased_toward_first", "biased_toward_second")


def picture(path):
    """Return a png file as the address of an image that is in the page."""
    with open(path, "rb") as file:
        return f"data:image/png;base64,{base64.b64encode(file.read()).decode()}"


def results(made):
    """Return a dict for each policy of winrate.json (`made`): its rates, and `cells`.

    cells: its summaries by category and by turn, None for a turn that no question has.
    """
    rows = []
    for policy in made["policies"]:
        rates = made["win_rates"][policy]
        slices = [*(("category", name) for name in made["categories"]), ("turn", "1"), ("turn", "2")]
        rows.append(
            {
                "policy": policy,
                **rates["overall"],
                **{name: rates["position_bias"][name] for name in POSITIONS},
                "words": rates["mean_words"]["policy"],
                "start_words": rates["mean_words"]["start"],
                "cells": [rates[kind].get(name) for kind, name in slices],
            }
        )
    return rows


def over_seeds(made):
    """Return a dict for each iteration of a run with seeds in winrate.json (`made`): its summary."""
    rows = []
    for name, found in made["repeated"].items():
        overall = found["overall"]
        rows.append({"policy": name, **overall, "seeds": len(overall["policies"])})
    return rows


def other_judges(made):
    """Return the other judges of winrate.json (`made`): name, agreement, and rates in the policies' order."""
    return [
        {
            "judge": name,
            **other["agreement"],
            "rates": [other["win_rates"][policy]["overall"] for policy in made["policies"]],
        }
        for name, other in made["other_judges"].items()
    ]


def advantages(made):
    """Return (names, rows) of who beats whom by winrate.json (`made`): the policies, the start policy last.

    A run with seeds is one of them for each iteration.

    rows: for each policy a list with, for each policy, None or {"advantage": float, "sure": bool}.
    """
    names = [*policies.subjects(made["policies"]), made["start"]]
    rows = [[None] * len(names) for _ in names]
    for one in made["comparisons"]:
        if one["advantage"] is not None:
            row, column = names.index(one["policy"]), names.index(one["other"])
            sure = one["p_corrected"] < 1 - made["confidence"]
            rows[row][column] = {"advantage": one["advantage"], "sure": sure}
            rows[column][row] = {"advantage": -one["advantage"], "sure": sure}
    return names, rows


def table(path):
    """Return a csv file as {title, columns, rows}: texts, numbers with four digits, and no column `settings`.

    The title is the file's name.
    """
    with open(path, encoding="utf-8", newline="") as file:
        columns, *rows = csv.reader(file)
    kept = [place for place, name in enumerate(columns) if name != "settings"]
    return {
        "title": Path(path).stem,
        "columns": [columns[place] for place in kept],
        "rows": [[_short(row[place]) for place in kept] for row in rows],
    }


def _short(cell):
    """Return a cell of a csv file: a fraction with four digits, anything else unchanged."""
    return f"{float(cell):.4g}" if re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", cell) else cell


def dropped(step, made):
    """Return rows of the table of what was dropped: of the json that a step writes beside its data.

    step: str; made: dict with `kept` and `dropped`, or such dicts by split under `splits`.
    """
    splits = made.get("splits") or {"": made}
    rows = []
    for split, counts in splits.items():
        kept = counts["kept"]
        rows.append(
            {
                "step": step,
                "of": split or "all",
                "kept": sum(kept.values()) if isinstance(kept, dict) else kept,
                "reasons": [
                    (name.replace("_", " "), number) for name, number in counts["dropped"].items() if number
                ],
            }
        )
    return rows


def trainings(metrics):
    """Return rows of the table of trainings. metrics: {model: what its metrics.json holds}."""
    rows = []
    for model, made in metrics.items():
        cells = [form.format(made[name]) if name in made else "" for name, form in WORK.items()]
        for name in MEASURES:
            after = made.get(f"eval_{name}")
            before = made.get(f"eval_{name}_before")
            cells.append(
                "" if after is None else " → ".join(f"{x:.3g}" for x in (before, after) if x is not None)
            )
        rows.append({"model": model, "cells": cells})
    return rows


def differences(runs):
    """Return the keys on which runs differ: [{key, cells}]. runs: {run: {key: value}}, keys optional."""
    keys = dict.fromkeys(key for values in runs.values() for key in values)
    rows = []
    for key in keys:
        cells = [json.dumps(values[key]) if key in values else "" for values in runs.values()]
        if len(set(cells)) > 1:
            rows.append({"key": key, "cells": [cell.strip('"') for cell in cells]})
    return rows


def models(manifests):
    """Return rows of the table of models. manifests: {model: what its manifest holds}."""
    rows = []
    for model, made in manifests.items():
        weights = sorted(sha for name, sha in made["files"].items() if name.endswith(".safetensors"))
        rows.append(
            {
                "model": model,
                "sha256": ", ".join(sha[:12] for sha in weights) or "no weights",
                "rule": made["lineage"]["rule"],
                "parents": [(path, sha[:12]) for path, sha in sorted(made["lineage"]["parents"].items())],
            }
        )
    return rows


def versions(manifests):
    """Return rows of the table of packages: {package, version, models}. manifests: as `models` takes them."""
    found = {}
    for model, made in manifests.items():
        for package, version in sorted(made["lineage"].get("packages", {}).items()):
            if version:
                found.setdefault((package, version), []).append(model)
    return [
        {"package": package, "version": version, "models": names}
        for (package, version), names in sorted(found.items())
    ]


def rule_edges(outputs, origin):
    """Return (edges, again) between the rules that made `outputs` and all that they were made from.

    origin: a function that gives (rule, inputs) of a path, None for what no rule made. edges: sorted list of
    (from, to) that go round in no circle; again: those that begin another iteration.
    """
    graph, rules, waiting = networkx.DiGraph(), {}, list(outputs)
    while waiting:
        path = waiting.pop()
        made = origin(path) if path not in rules else None
        if made:
            rules[path], sources = made
            graph.add_edges_from((source, path) for source in sources)
            waiting += sources
    first, depth = {}, {}
    for path in networkx.topological_sort(graph):
        if path in rules:
            depth[path] = 1 + max((depth.get(source, 0) for source in graph.predecessors(path)), default=0)
            first[rules[path]] = min(first.get(rules[path], depth[path]), depth[path])
    edges = {(rules[a], rules[b]) for a, b in graph.edges if a in rules and rules[a] != rules[b]}
    circle = {
        rule: number
        for number, members in enumerate(networkx.strongly_connected_components(networkx.DiGraph(edges)))
        for rule in members
    }
    again = {(a, b) for a, b in edges if circle[a] == circle[b] and first[a] >= first[b]}
    return sorted(edges - again), sorted(again)

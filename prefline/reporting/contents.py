"""What stands in the report, gathered from the files under results/: plain lists and dicts."""

import base64
import csv
import json
import re
import zlib
from pathlib import Path

import networkx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prefline.data import sources
from prefline.errors import InputError
from prefline.judging import fastchat, winrate

# Columns of the table of trainings: of metrics.json, and how a number is shown.
WORK = {
    "train_steps": "{:,.0f}",
    "train_tokens": "{:,.0f}",
    "train_tokens_per_second": "{:,.0f}",
    "train_runtime": "{:,.0f} s",
    "peak_memory_mb": "{:,.0f} MB",
}
MEASURES = ("loss", "rewards/margins", "rewards/accuracies", "reward", "kl")
OUTCOMES = {"model_1": 0, "model_2": 1}
JUDGED = (*fastchat.JUDGMENT_KEYS, "g1_judgment", "g2_judgment")


def picture(path):
    """A png file as the address of an image that is in the page."""
    with open(path, "rb") as file:
        return f"data:image/png;base64,{base64.b64encode(file.read()).decode()}"


def packed(value):
    """A value as text that a page can hold: base64 of deflated JSON. Equal values give equal text."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def results(made):
    """One dict for each policy of winrate.json (`made`): its rates, and `cells`, by category and by turn."""
    rows = []
    for policy in made["policies"]:
        rates = made["win_rates"][policy]
        slices = [*(("category", name) for name in made["categories"]), ("turn", "1"), ("turn", "2")]
        rows.append(
            {
                "policy": policy,
                **rates["overall"],
                "consistency": rates["position_bias"]["consistency"],
                "words": rates["mean_words"]["policy"],
                "start_words": rates["mean_words"]["start"],
                "cells": [rates[kind].get(name, {}).get("win_rate_adjusted") for kind, name in slices],
            }
        )
    return rows


def table(path):
    """A csv file as {title, columns, rows}: texts, numbers with four digits, and no column `settings`.

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
    """A cell of a csv file: a fraction with four digits, anything else as it is."""
    return f"{float(cell):.4g}" if re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", cell) else cell


def answers(paths, policies, questions):
    """{policy: {question_id: [answer to each turn]}} of answer files, in the policies' order."""
    return {
        policy: fastchat.read_answers(path, questions) for policy, path in zip(policies, paths, strict=True)
    }


def verdicts(path):
    """{question_id: [{turn, outcome, games}]} of a policy's judgments against the start policy.

    games: the two orders of the answers: {first, second, winner, words}; model_1 is first in game 1.
    """
    found = {}
    for _, judgment in sources.read_rows(path, {name: name for name in JUDGED}):
        names = [judgment["model_1"], judgment["model_2"]]
        games = []
        for game, order in (("g1", names), ("g2", names[::-1])):
            winner = judgment[f"{game}_winner"]
            games.append(
                {
                    "first": order[0],
                    "second": order[1],
                    "winner": names[OUTCOMES[winner]] if winner in OUTCOMES else winner,
                    "words": judgment[f"{game}_judgment"],
                }
            )
        found.setdefault(judgment["question_id"], []).append(
            {"turn": judgment["turn"], "outcome": winrate.outcome(judgment), "games": games}
        )
    return found


def samples(folder, shards, limit):
    """The prompts that a policy was given and what it said, best first; at most `limit` prompts.

    folder: Path of results/samples/{policy}. The prompts are those whose ids, which are hashes, come first.
    """
    ranked = pq.read_table(
        folder / "ranked.parquet",
        columns=["prompt_id", "split", "sample", "finish_reason", "reward", "role"],
    )
    chosen = pc.unique(ranked["prompt_id"]).sort()[:limit]
    prompts, texts = (
        _rows(folder, kind, shards, chosen, columns)
        for kind, columns in (
            ("prompts", ["prompt_id", "messages"]),
            ("completions", ["prompt_id", "sample", "completion"]),
        )
    )
    completions = {(row["prompt_id"], row["sample"]): row["completion"] for row in texts}
    found = {row["prompt_id"]: {"id": row["prompt_id"], "messages": row["messages"]} for row in prompts}
    for row in ranked.filter(pc.is_in(ranked["prompt_id"], chosen)).to_pylist():
        if row["prompt_id"] not in found or (row["prompt_id"], row["sample"]) not in completions:
            raise InputError(
                f"{folder / 'ranked.parquet'}: prompt_id {row['prompt_id']}, sample {row['sample']} is in no "
                "shard of prompts and completions; delete the file and let its rule make it again"
            )
        prompt = found[row["prompt_id"]]
        prompt["split"] = row["split"]
        prompt.setdefault("completions", []).append(
            {
                "text": completions[row["prompt_id"], row["sample"]],
                "reward": row["reward"],
                "role": row["role"],
                "cut": row["finish_reason"] == "length",
            }
        )
    for prompt in found.values():
        prompt["completions"].sort(
            key=lambda one: (one["reward"] is None, -(one["reward"] or 0.0), one["text"])
        )
    return [found[name] for name in sorted(found)]


def _rows(folder, kind, shards, prompt_ids, columns):
    """The rows (list of dict) of some prompts in all shards of one kind."""
    tables = []
    for shard in shards:
        table = pq.read_table(folder / kind / f"{shard}.parquet", columns=columns)
        tables.append(table.filter(pc.is_in(table["prompt_id"], prompt_ids)))
    return pa.concat_tables(tables).to_pylist()


def dropped(step, made):
    """Rows of the table of what was dropped: of the json that a step writes beside its data.

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
    """Rows of the table of trainings. metrics: {model: what its metrics.json holds}."""
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
    """The keys on which runs differ: [{key, cells}]. runs: {run: {key: value}}; a key may be missing."""
    keys = dict.fromkeys(key for values in runs.values() for key in values)
    rows = []
    for key in keys:
        cells = [json.dumps(values[key]) if key in values else "" for values in runs.values()]
        if len(set(cells)) > 1:
            rows.append({"key": key, "cells": [cell.strip('"') for cell in cells]})
    return rows


def models(manifests):
    """Rows of the table of models. manifests: {model: what its manifest holds}."""
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


def rule_edges(outputs, origin):
    """(edges, again) between the rules that made `outputs` and all that they were made from.

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

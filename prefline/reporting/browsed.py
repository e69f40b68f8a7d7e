"""Gather the answers, verdicts, ratings, completions and pairs that the report's browsers show."""

import base64
import json
import zlib

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prefline.data import sources
from prefline.errors import InputError
from prefline.judging import fastchat

# The winner of a game: the first model of its match, the second, none of them, or nobody knows.
WINNERS = {"model_1": 1, "model_2": 2, "tie": 0, "error": None}
RATED = ("question_id", "turn", "model", "judge", "score", "judgment")


def packed(value):
    """Return a value as text that a page can hold: base64 of deflated JSON. Equal values give equal text."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A half of a UTF-16 pair, which JSON files can hold, becomes what decoders show for broken text.
    return base64.b64encode(zlib.compress(text.encode("utf-8", "surrogatepass"), 9)).decode()


def answers(paths, policies, questions):
    """Return {policy: [[answer to each turn] of each question]} of answer files, in the policies' order."""
    found = {}
    for policy, path in zip(policies, paths, strict=True):
        given = fastchat.read_answers(path, questions)
        found[policy] = [given[question["question_id"]] for question in questions]
    return found


def verdicts(paths, questions):
    """Return [{judge, models, matches}] of files of judgments, each one judge's of two policies.

    matches: for each question a list with, for each turn, None or [winner in game 1, in game 2, words in game
    1, in game 2]. Winners are as in WINNERS. models[0] is first in game 1 and second in game 2.
    """
    places = {question["question_id"]: place for place, question in enumerate(questions)}
    found = {}
    for path in paths:
        for where, row in fastchat.read_judgments(path):
            names = (row["judge"][0], row["model_1"], row["model_2"])
            match = [
                WINNERS[row["g1_winner"]],
                WINNERS[row["g2_winner"]],
                row["g1_judgment"],
                row["g2_judgment"],
            ]
            turns = found.setdefault(names, [[None] * len(question["turns"]) for question in questions])
            turns[_place(where, row, places)][row["turn"] - 1] = match
    return [{"judge": judge, "models": models, "matches": turns} for (judge, *models), turns in found.items()]


def ratings(paths, questions):
    """Return [{judge, policy, ratings}] of files of ratings.

    ratings: for each question, for each turn, None or [score, words]; the score is None for an error.
    """
    places = {question["question_id"]: place for place, question in enumerate(questions)}
    found = {}
    for path in paths:
        for where, row in sources.read_rows(path, {name: name for name in RATED}):
            names = (row["judge"][0], row["model"])
            turns = found.setdefault(names, [[None] * len(question["turns"]) for question in questions])
            score = None if row["score"] == -1 else row["score"]
            turns[_place(where, row, places)][row["turn"] - 1] = [score, row["judgment"]]
    return [{"judge": judge, "policy": policy, "ratings": turns} for (judge, policy), turns in found.items()]


def _place(where, row, places):
    """Return the place of a judgment's question among those that are asked."""
    if row["question_id"] not in places:
        raise InputError(f"{where}: question {row['question_id']} is not among the questions")
    return places[row["question_id"]]


def samples(folder, shards, limit):
    """Return the prompts that a policy was given and what it said, best first; at most `limit` prompts.

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


def pairs(path, limit):
    """Return the pairs of an existing preference dataset in the form of `samples`, at most `limit` prompts.

    path: a policy's preferences.parquet.
    """
    columns = ["prompt_id", "split", "messages"]
    columns += [f"{role}{suffix}" for role in ("chosen", "rejected") for suffix in ("", "_reward")]
    table = pq.read_table(path, columns=columns)
    chosen = pc.unique(table["prompt_id"]).sort()[:limit]
    found = {}
    for row in table.filter(pc.is_in(table["prompt_id"], chosen)).to_pylist():
        prompt = {
            "id": row["prompt_id"],
            "messages": row["messages"],
            "split": row["split"],
            "completions": [],
        }
        found.setdefault(row["prompt_id"], prompt)["completions"].extend(
            {"text": row[role], "reward": row[f"{role}_reward"], "role": role, "cut": False}
            for role in ("chosen", "rejected")
            if row[role] is not None  # of a completion with a label
        )
    return [found[name] for name in sorted(found)]


def _rows(folder, kind, shards, prompt_ids, columns):
    """Return the rows (list of dict) of some prompts in all shards of one kind."""
    tables = []
    for shard in shards:
        table = pq.read_table(folder / kind / f"{shard}.parquet", columns=columns)
        tables.append(table.filter(pc.is_in(table["prompt_id"], prompt_ids)))
    return pa.concat_tables(tables).to_pylist()

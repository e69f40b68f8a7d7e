"""The answers of a shard and their rewards, for every script that scores: read once, written in one form.

reads   prompts (prompt_id, messages, reference), completions (prompt_id, sample, completion, answer)
writes  the columns of tables.REWARDS, in the order of the completions
"""

import statistics
import time

from prefline.data import tables
from prefline.errors import InputError
from prefline.provenance import journal
from prefline.rewards import Dialogue


def read(prompts, completions):
    """Return (rows, dialogues): the completions (list of dicts), and the `Dialogue` of each, or None.

    prompts, completions: the shard's parquet files. A request that the engine gave up has a row without an
    answer. Raises InputError for a completion of a prompt that is not there.
    """
    by_id = {row["prompt_id"]: row for row in tables.read_rows(prompts, tables.PROMPTS)}
    rows, dialogues = tables.read_rows(completions, tables.COMPLETIONS), []
    for row in rows:
        where = f"{completions}: prompt_id {row['prompt_id']}, sample {row['sample']}"
        if row["prompt_id"] not in by_id:
            raise InputError(
                f"{where}: the shard's prompts do not have it; delete this file and generate it again"
            )
        prompt = by_id[row["prompt_id"]]
        answer = row["completion"] if row["answer"] is None else row["answer"]
        dialogue = Dialogue(prompt["messages"], answer, where, prompt["reference"])
        dialogues.append(None if row["finish_reason"] == "error" else dialogue)
    return rows, dialogues


def score(root, context, about, dialogues, batches):
    """Return [reward, parts] of each of `dialogues`, None for None; from the journal where it has them.

    root, context, about: see journal.Journal. batches(missing): a generator that yields (numbers, Scores) of
    the list of dialogues that the journal lacks; see `rewards`.
    """

    def make(missing):
        keys, waiting, started = list(missing), list(missing.values()), time.perf_counter()
        for numbers, scores in batches(waiting):
            rewards = scores.reward.tolist()
            parts = [None] * len(numbers) if scores.parts is None else scores.parts.tolist()
            yield {keys[row]: pair for row, *pair in zip(numbers, rewards, parts, strict=True)}
        seconds = time.perf_counter() - started
        print(f"{len(keys)} scored in {seconds:.1f} s, {len(keys) / max(seconds, 1e-9):.0f} per second")

    names = [dialogue and journal.key(dialogue.messages, dialogue.completion) for dialogue in dialogues]
    wanted = {name: dialogue for name, dialogue in zip(names, dialogues, strict=True) if dialogue}
    made = journal.Journal(root, "rewards", context, about).rows(wanted, make)
    return [made.get(name) for name in names]


def compare(root, context, about, comparisons, batches):
    """Return the probability that a beats b of each of `comparisons`, from the journal where it has it.

    root, context, about: see journal.Journal. batches(missing): a generator that yields (numbers,
    probabilities) of the list of Comparison that the journal lacks; see `prefline.rewards.pairwise`.
    """

    def make(missing):
        keys, started = list(missing), time.perf_counter()
        for numbers, probabilities in batches(list(missing.values())):
            yield {keys[number]: value for number, value in zip(numbers, probabilities, strict=True)}
        seconds = time.perf_counter() - started
        print(f"{len(keys)} compared in {seconds:.1f} s, {len(keys) / max(seconds, 1e-9):.1f} per second")

    keys = [journal.key(one.messages, one.a, one.b) for one in comparisons]
    kept = journal.Journal(root, "comparisons", context, about)
    made = kept.rows(dict(zip(keys, comparisons, strict=True)), make)
    return [made[key] for key in keys]


def write(path, rows, scored):
    """Write `scored`, [reward, parts] or None for each of `rows`, as the parquet file `path`."""
    made = [
        {"prompt_id": row["prompt_id"], "sample": row["sample"], "reward": reward, "parts": parts}
        for row, (reward, parts) in zip(rows, [pair or (None, None) for pair in scored], strict=True)
    ]
    tables.write(path, made, tables.REWARDS)
    found = [row["reward"] for row in made if row["reward"] is not None]
    print(f"{len(found)} of {len(made)} completions have a reward")
    if found:
        print(f"reward: mean {statistics.fmean(found):.4f}, min {min(found):.4f}, max {max(found):.4f}")

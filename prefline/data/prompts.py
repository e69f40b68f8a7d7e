"""Normalize prompts, name them, choose those to use, and assign them to splits and shards."""

import hashlib
import json
import unicodedata
from pathlib import Path

from prefline import seeds
from prefline.data import ngrams, sources
from prefline.errors import InputError


def normalize(messages):
    """Return `messages` (list of {"role", "content"}) in normal form, for comparisons."""
    return [{"role": message["role"], "content": normal_text(message["content"])} for message in messages]


def normal_text(text):
    """Return `text` in Unicode's NFC, with line feeds between lines and no white space at their ends."""
    lines = unicodedata.normalize("NFC", text).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip()


def prompt_id(messages):
    """Return the stable name (16 hexadecimal digits) of a prompt, a hash of its normalized messages."""
    canonical = json.dumps(
        [[message["role"], message["content"]] for message in normalize(messages)], ensure_ascii=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def split_of(prompt_id, test_fraction, seed):
    """Return "train" or "test", by the prompt alone, regardless of the other prompts."""
    return "test" if seeds.uniform(seed, "split", prompt_id) < test_fraction else "train"


def question_ngrams(path, n):
    """Return the n-grams of all turns of the questions (FastChat's form) in the jsonl file `path`."""
    turns = set()
    for where, row in sources.read_rows(path, {"turns": "turns"}):
        if not isinstance(row["turns"], list) or not all(isinstance(turn, str) for turn in row["turns"]):
            raise InputError(f"{where}: `turns` is a list of questions, not {row['turns']!r:.60}")
        turns.update(row["turns"])
    return ngrams.of_texts(turns, n)


def fault(messages, questions, n):
    """Return why the prompt `messages` is not used, as a word for the counts; None if it is used.

    questions: n-grams of the evaluation questions, which are compared with every user turn.
    """
    if messages[-1]["role"] not in ("user", "tool"):
        return "last_turn_not_user"
    if any(ngrams.overlaps(turn["content"], questions, n) for turn in messages if turn["role"] == "user"):
        return "contaminated"
    return None


def shards(numbers):
    """Return the names of shards, in order. numbers: {split: number of its shards}."""
    return [f"{split}-{shard:05d}" for split, number in numbers.items() for shard in range(number)]


def split_of_shard(path):
    """Return the split (str) of a shard's path: train of …/train-00000.parquet."""
    split = Path(path).stem.rsplit("-", 1)[0]
    if split not in ("train", "test"):
        raise InputError(f"{path}: a shard is called train-NNNNN.parquet or test-NNNNN.parquet")
    return split


def shard_range(shard, iteration, section):
    """Return the prompts of a shard (dict): `split`, rank of the `first` prompt there, `number` of prompts.

    shard: its name, "train-00000"; iteration: 0, 1, …; section: the config's `prompts`. Each iteration has
    new training prompts and the same test prompts. If num_prompts grows, the shards of iteration 0 stay
    unchanged, except the last, which fills up.
    """
    split, index = shard.split("-")
    number = section["num_prompts" if split == "train" else "num_test_prompts"]
    start = int(index) * section["shard_size"]
    first = iteration * number + start if split == "train" else start
    return {"split": split, "first": first, "number": min(section["shard_size"], number - start)}


def given_pairs(section):
    """Return the preference dataset (dict) that replaces the first iteration's samples, or None.

    section: the config's `prompts`.
    """
    return section["preferences"] if section["preferences"]["use"] else None

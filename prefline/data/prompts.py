"""Prompts: their normal form, their id, which of them are fit for use, and where each one goes."""

import hashlib
import json
import unicodedata

from prefline import seeds
from prefline.data import ngrams, sources
from prefline.errors import InputError


def normalize(messages):
    """`messages` (list of {"role", "content"}) with every content in its normal form."""
    return [{"role": message["role"], "content": normal_text(message["content"])} for message in messages]


def normal_text(text):
    """`text` in Unicode's NFC, with line feeds between lines, no white space at their ends or around."""
    lines = unicodedata.normalize("NFC", text).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip()


def prompt_id(messages):
    """The stable name (16 hexadecimal digits) of a prompt, given as its normalized messages."""
    canonical = json.dumps(
        [[message["role"], message["content"]] for message in messages], ensure_ascii=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def split_of(prompt_id, test_fraction, seed):
    """ "train" or "test": a matter of the prompt alone, however many others there are."""
    return "test" if seeds.uniform(seed, "split", prompt_id) < test_fraction else "train"


def is_blank(value):
    """Whether a prompt or answer, as str or list of messages or None, lacks text somewhere."""
    if isinstance(value, list):
        return not value or any(isinstance(turn, dict) and is_blank(turn.get("content")) for turn in value)
    return value is None or (isinstance(value, str) and not value.strip())


def question_ngrams(path, n):
    """The n-grams of all turns of the questions (FastChat's form) in the jsonl file `path`."""
    turns = set()
    for where, row in sources.read_rows(path, {"turns": "turns"}):
        if not isinstance(row["turns"], list) or not all(isinstance(turn, str) for turn in row["turns"]):
            raise InputError(f"{where}: `turns` is a list of questions, not {row['turns']!r:.60}")
        turns.update(row["turns"])
    return ngrams.of_texts(turns, n)


def fault(messages, special_tokens, questions, n):
    """Why the prompt `messages` (normalized) is not used, as a word for the counts; None if it is used.

    special_tokens: the tokenizer's, whose text inside a message would become structure; questions: n-grams
    of the evaluation questions, against which every user turn is held.
    """
    if messages[-1]["role"] != "user":
        return "last_turn_not_user"
    if any(token in message["content"] for message in messages for token in special_tokens):
        return "special_token"
    if any(ngrams.overlaps(turn["content"], questions, n) for turn in messages if turn["role"] == "user"):
        return "contaminated"
    return None


def shard_range(shard, iteration, section):
    """Which prompts a shard holds: its `split`, the rank there of the `first` one, and their `number`.

    shard: its name, "train-00000"; iteration: 0, 1, …; section: the config's `prompts`. Training prompts are
    fresh in each iteration, test prompts the same. As num_prompts grows, the shards of iteration 0 stay as
    they are, but for the last, which fills up.
    """
    split, index = shard.split("-")
    number = section["num_prompts" if split == "train" else "num_test_prompts"]
    start = int(index) * section["shard_size"]
    first = iteration * number + start if split == "train" else start
    return {"split": split, "first": first, "number": min(section["shard_size"], number - start)}


def sources_of(section):
    """The data sources of the prompts, as a list. section: the config's `prompts`."""
    return [section["source"]] if isinstance(section["source"], str) else section["source"]


def given_pairs(section):
    """The preference dataset (dict) that stands in for the first iteration's samples, or None.

    section: the config's `prompts`.
    """
    return section["preferences"] if section["preferences"]["use"] else None


def in_order(prompt_ids, seed):
    """`prompt_ids` in the seeded order in which they are handed out."""
    return sorted(prompt_ids, key=lambda prompt_id: (seeds.derive(seed, "order", prompt_id), prompt_id))


def counts_sentence(read, kept, dropped):
    """For messages: "120 rows read, 80 kept, dropped: 30 duplicate, 10 too_long"."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "none"
    return f"{read} rows read, {kept} kept, dropped: {reasons}"

"""Make the pool of prompts that policies are asked: clean, different, unseen in the evaluation, short enough.

Prompts come as strings or as chat messages that end with the user's turn. A row is dropped, and counted by
the first reason that holds:
    blank               the prompt or one of its messages has no text
    last_turn_not_user  there is nothing to answer
    special_token       the text of a special token in a message would become structure
    contaminated        a user turn shares n words in a row with an evaluation question, or is the same as a
                        question of fewer than n words
    duplicate           an equal prompt (after normalization, system message included) came before
    too_long            more tokens than --max-prompt-length, counted with the chat template

    reads   prompt: str or list of {"role", "content"}; reference: a right answer, where the data has them
    writes  prompt_id, messages, prompt_ids, reference, split ("train" or "test", by a hash of the prompt)

    python -m scripts.prompts.prepare_prompts --source '["data/world/prompts.jsonl"]' \\
        --columns '{"prompt": "messages"}' --system null --tokenizer results/models/sft \\
        --questions data/mt_bench/question.jsonl --test-fraction 0.15 --max-prompt-length 128 \\
        --decontamination-ngram 8 --seed 1 \\
        --out results/prompts/pool.parquet --metrics results/prompts/pool.json
"""

import itertools
from collections import Counter

import numpy as np

from prefline import errors, files
from prefline.config import section
from prefline.data import prompts, sources, tables
from prefline.errors import InputError
from prefline.text import chat


def clean(rows, system, special_tokens, questions, n):
    """{prompt_id: (normalized messages, reference)}, in order, and the Counter of the dropped rows' reasons.

    rows: (where, {"prompt": …, "reference": … or none}) as `sources.read_rows` yields them; the rest as in
    `prompts.fault`. Raises InputError for a reference that is no string.
    """
    pool, dropped = {}, Counter()
    for where, row in rows:
        if prompts.is_blank(row["prompt"]):
            dropped["blank"] += 1
            continue
        messages = prompts.normalize(chat.as_messages(row["prompt"], where, system))
        prompt_id = prompts.prompt_id(messages)
        reason = prompts.fault(messages, special_tokens, questions, n)
        if reason is None and prompt_id in pool:
            reason = "duplicate"
        if reason is None:
            pool[prompt_id] = messages, reference(row.get("reference"), where)
        else:
            dropped[reason] += 1
    return pool, dropped


def reference(value, where):
    """A right answer as str: numbers become one; None where there is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if value is None or isinstance(value, str):
        return value
    raise InputError(f"{where}: the reference is a string or a number, not {value!r:.60}")


def tokenize(pool, tokenizer, source):
    """{prompt_id: ids} of the prompts; InputError names the one that the chat template cannot render."""
    ids = {}
    for prompt_id, (messages, _) in pool.items():
        try:
            ids[prompt_id] = chat.prompt_ids(tokenizer, messages)
        except InputError as error:
            raise InputError(f"{source}, prompt {messages[-1]['content']!r:.60}: {error}") from None
    return ids


def lengths(prompt_ids):
    """Percentiles of the prompts' numbers of tokens, for choosing a limit."""
    counts = [len(ids) for ids in prompt_ids]
    return {f"p{q}": float(np.percentile(counts, q)) for q in (50, 90, 99)} | {"max": max(counts)}


def main(argv=None):
    parser = section.parser(__doc__)
    section.add(parser, "prompts", "source", "columns", "system")
    section.add(parser, "prompts", "test_fraction", "max_prompt_length", "decontamination_ngram")
    section.add(parser, "seed")
    parser.add_argument("--tokenizer", required=True, help="the start policy's directory")
    parser.add_argument("--questions", required=True, help="evaluation questions, in FastChat's form (jsonl)")
    parser.add_argument("--out", required=True, help="the pool (parquet)")
    parser.add_argument("--metrics", required=True, help="kept and dropped counts, lengths (json)")
    args = parser.parse_args(argv)

    tokenizer = chat.load_tokenizer(args.tokenizer)
    questions = prompts.question_ngrams(args.questions, args.decontamination_ngram)
    rows = itertools.chain.from_iterable(sources.read_rows(source, args.columns) for source in args.source)
    special_tokens = chat.special_tokens(tokenizer).values()
    pool, dropped = clean(rows, args.system, special_tokens, questions, args.decontamination_ngram)
    read = len(pool) + dropped.total()
    named = ", ".join(args.source)
    ids = tokenize(pool, tokenizer, named)
    kept = [prompt_id for prompt_id in pool if len(ids[prompt_id]) <= args.max_prompt_length]
    dropped["too_long"] = len(pool) - len(kept)
    if not kept:
        raise InputError(f"{named}: no prompt is left; {prompts.counts_sentence(read, 0, +dropped)}")

    table = [
        {
            "prompt_id": prompt_id,
            "messages": pool[prompt_id][0],
            "prompt_ids": ids[prompt_id],
            "reference": pool[prompt_id][1],
            "split": prompts.split_of(prompt_id, args.test_fraction, args.seed),
        }
        for prompt_id in kept
    ]
    splits = Counter(row["split"] for row in table)
    tables.write(args.out, table, tables.POOL)
    files.write_json(
        args.metrics,
        {
            "read": read,
            "kept": {"train": splits["train"], "test": splits["test"]},
            "dropped": dict(+dropped),
            "prompt_length": lengths(ids.values()),
        },
    )
    print(f"{named}: {prompts.counts_sentence(read, len(kept), +dropped)}")
    print(f"{splits['train']} prompts for training, {splits['test']} for testing")


if __name__ == "__main__":
    errors.run(main)

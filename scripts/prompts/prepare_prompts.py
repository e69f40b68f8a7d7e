"""Make the pool of prompts for policies: clean, different, not in the evaluation, and short enough.

Prompts come in the forms of prefline/data/messages.py; their text stays unchanged. A row is dropped, and
counted by the first reason that applies. Reasons are those of the data's form, such as `blank`, and

    special_token       a message has the text of a special token, unless data.special_tokens is as_text
    last_turn_not_user  there is nothing to answer
    contaminated        a user turn shares n words in a row with an evaluation question, or is the same as a
                        question of fewer than n words
    duplicate           an equal prompt (after normalization, system message included) came before
    template            the chat template cannot render it, or drops a message
    too_long            more tokens than --max-prompt-length, counted with the chat template
    not_taken           the weights of several sources leave no room for it

The pool is in the order in which shards take its prompts, by a seeded hash: training prompts, then held-out
ones. So the job of a shard reads no other part of the file.

    reads   prompt: text or messages; reference: a right answer, where the data has them
    writes  prompt_id, messages, prompt_ids, reference, split ("train" or "test", by a hash of the prompt);
            metadata: the number of prompts of each split

    python -m scripts.prompts.prepare_prompts --source '["data/world/prompts.jsonl"]' \\
        --columns '{"prompt": "messages"}' --system null --tokenizer results/models/sft \\
        --questions data/mt_bench/question.jsonl --test-fraction 0.15 --max-prompt-length 128 \\
        --decontamination-ngram 8 --seed 1 --special-tokens drop --max-dropped 0.2 \\
        --out results/prompts/pool.parquet --metrics results/prompts/pool.json
"""

import array
import functools
import itertools

import numpy as np

from prefline import errors, files, seeds
from prefline.config import section
from prefline.data import prompts, reading, tables
from prefline.errors import InputError
from prefline.text import chat

ROWS_AT_ONCE = 1000  # that are tokenized together


def clean(data, questions, n):
    """Yield the usable rows (dict, with "prompt_id") of `data` (reading.Data), without duplicates.

    questions and n: as in prompts.fault. The others are counted as dropped in `data`.
    """
    seen = set()
    for row in data:
        row["prompt_id"] = prompts.prompt_id(row["messages"])
        reason = prompts.fault(row["messages"], questions, n)
        number = int(row["prompt_id"], 16)
        if reason is None and number in seen:
            reason = "duplicate"
        if reason is None:
            seen.add(number)
            yield row
        else:
            data.drop(row, reason, reason.replace("_", " "))


def tokenize(rows, data, tokenizer, max_prompt_length):
    """Return the `rows` (list of dict) that the template renders in few enough tokens, with "prompt_ids".

    The second value has the numbers of tokens (list of int), of dropped rows too.
    """
    kept, counts = [], []
    _add_ids(rows, data, tokenizer)
    for row in rows:
        if row["prompt_ids"] is None:
            continue
        counts.append(len(row["prompt_ids"]))
        if counts[-1] <= max_prompt_length:
            kept.append(row)
        else:
            data.drop(row, "too_long")
    return kept, counts


def _add_ids(rows, data, tokenizer):
    """Add "prompt_ids" to `rows`; None, and counted as dropped, where the template refuses a row."""
    try:
        made = chat.prompts_and_completions(tokenizer, [(row["messages"], []) for row in rows])
    except InputError as error:
        if len(rows) > 1:  # which ones?
            for row in rows:
                _add_ids([row], data, tokenizer)
            return
        data.refuse(rows[0], error)
        made = [(None, [])]
    for row, (ids, _) in zip(rows, made, strict=True):
        row["prompt_ids"] = ids


def in_order(places, names, tests, seed):
    """Return `places` (int array) in the order of shards: training rows, then test rows, by a seeded hash.

    names: numbers (array) whose hexadecimal forms are the prompt_ids of all rows; tests: bytearray, 1 for a
    test row.
    """
    names, tests = np.array(names)[places], np.array(tests)[places]
    draws = np.array([seeds.derive(seed, "order", f"{name:016x}") for name in names.tolist()], np.int64)
    return places[np.lexsort((names, draws, tests))]


def lengths(counts):
    """Return percentiles of the prompts' numbers of tokens, for choosing a limit."""
    return {f"p{q}": float(np.percentile(counts, q)) for q in (50, 90, 99)} | {"max": max(counts)}


def main(argv=None):
    parser = section.parser(__doc__)
    section.add(parser, "prompts", "source", "columns", "system")
    section.add(parser, "prompts", "test_fraction", "max_prompt_length", "decontamination_ngram")
    section.add(parser, "seed")
    section.add(parser, "data")
    parser.add_argument("--tokenizer", required=True, help="the start policy's directory")
    parser.add_argument("--questions", required=True, help="evaluation questions, in FastChat's form (jsonl)")
    parser.add_argument("--out", required=True, help="the pool (parquet)")
    parser.add_argument("--metrics", required=True, help="kept and dropped counts, lengths (json)")
    args = parser.parse_args(argv)

    tokenizer = chat.load_tokenizer(args.tokenizer)
    chat.check_second_turn(tokenizer)
    questions = prompts.question_ngrams(args.questions, args.decontamination_ngram)
    data = reading.Data(
        "prompts",
        args.source,
        args.columns,
        reading.policy(args),
        functools.partial(chat.special_tokens_in, tokenizer),
        args.system,
        write=functools.partial(chat.calls_as_text, tokenizer),
    )
    rows, kept = clean(data, questions, args.decontamination_ngram), reading.Kept(data)
    lengths_of_all, names = array.array("i"), array.array("Q")
    with tables.Writer(args.out, tables.POOL) as pool:
        while batch := list(itertools.islice(rows, ROWS_AT_ONCE)):
            batch, counts = tokenize(batch, data, tokenizer, args.max_prompt_length)
            lengths_of_all.extend(counts)
            for row in batch:
                row["split"] = prompts.split_of(row["prompt_id"], args.test_fraction, args.seed)
                draw = seeds.derive(args.seed, "mix", row["prompt_id"]) if data.weighted else 0
                kept.add(row, draw)
                names.append(int(row["prompt_id"], 16))
            pool.add(batch)
        if data.weighted:
            kept.mix()
        data.finish()
        splits = kept.splits()
        pool.keep(in_order(np.array(kept.places, np.int64), names, kept.tests, args.seed), splits)
    files.write_json(
        args.metrics,
        {
            **data.as_dict(),
            "kept": {"train": splits["train"], "test": splits["test"]},
            "prompt_length": lengths(lengths_of_all),
        },
    )
    print(f"{splits['train']} prompts for training, {splits['test']} for testing")


if __name__ == "__main__":
    errors.run(main)

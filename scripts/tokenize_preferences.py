"""Turn preference pairs into the token ids that every later step works on, and drop those that are too long.

Sampled pairs keep the ids that the policy sampled: text tokenized again may differ from them. Pairs of an
existing dataset are tokenized here with the start policy's chat template. Nothing is truncated: a pair is
kept whole or dropped, and counted under the first reason that holds:

    identical_ids    chosen and rejected are the same tokens
    long_prompt      more prompt tokens than --max-prompt-length
    long_completion  more tokens in chosen or rejected than --max-completion-length

    reads   the columns of tables.PREFERENCES
    writes  prompt_id, split, prompt_ids, chosen_ids, rejected_ids (unpadded int32), rewards, win
            probabilities; in order

    python -m scripts.tokenize_preferences --preferences results/samples/sft/preferences.parquet \\
        --tokenizer results/models/sft --max-prompt-length 128 --max-completion-length 64 \\
        --out tokenized.parquet --metrics tokenized.json
"""

import argparse
from collections import Counter

import numpy as np
import pyarrow as pa

from scripts.common import chat, errors, files, tables
from scripts.common.errors import InputError

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
REASONS = ("identical_ids", "long_prompt", "long_completion")
PERCENTILES = (50, 90, 95, 99, 100)
ROWS_AT_ONCE = 1000  # bounds the memory that ids take as Python integers


def with_ids(rows, tokenizer, vocab_size, place):
    """`rows` (list of dict) with the ids of their prompts and answers, made for those that have none.

    vocab_size: int, rows of the model's embedding, which may be more than the tokenizer's tokens. Raises
    InputError, which begins with place(number of the row), for a template that the dialogue breaks, for an id
    outside the vocabulary and for an empty answer.
    """
    texts = [number for number, row in enumerate(rows) if row["prompt_ids"] is None]
    made = chat.prompts_and_completions(
        tokenizer,
        [(rows[number]["messages"], [rows[number]["chosen"], rows[number]["rejected"]]) for number in texts],
        lambda number: place(texts[number]),
    )
    for number, (prompt, (chosen, rejected)) in zip(texts, made, strict=True):
        rows[number] |= {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    for number, row in enumerate(rows):
        for column in IDS:
            if not row[column]:
                raise InputError(f"{place(number)}: {column} has no tokens")
            if min(row[column]) < 0 or max(row[column]) >= vocab_size:
                raise InputError(
                    f"{place(number)}: {column} has an id outside the vocabulary of {vocab_size} tokens; "
                    "pairs must come from models with the start policy's tokenizer"
                )
    return rows


def drop_reason(row, max_prompt_length, max_completion_length):
    """Why a row with ids is dropped (str of REASONS), or None."""
    if row["chosen_ids"] == row["rejected_ids"]:
        return "identical_ids"
    if len(row["prompt_ids"]) > max_prompt_length:
        return "long_prompt"
    if max(len(row["chosen_ids"]), len(row["rejected_ids"])) > max_completion_length:
        return "long_completion"
    return None


def percentiles(lengths):
    """{"50": …, "100": …} of a list of token counts, each a length that occurs; {} of none."""
    if not lengths:
        return {}
    values = np.percentile(lengths, PERCENTILES, method="inverted_cdf")
    return {str(percent): int(value) for percent, value in zip(PERCENTILES, values, strict=True)}


def check_left(metrics, max_prompt_length, max_completion_length):
    """Raise InputError, with what to raise to which value, if no training pair is left."""
    train, lengths = metrics["splits"]["train"], metrics["lengths"]
    if train["kept"]:
        return
    longest = {column: lengths[column].get("50", 0) for column in IDS}
    raise InputError(
        f"no training pair is left of {train['pairs']}: {train['dropped']}; half of the prompts have "
        f"{longest['prompt_ids']} tokens or more (tokenize.max_prompt_length is {max_prompt_length}), half "
        f"of the answers {max(longest['chosen_ids'], longest['rejected_ids'])} or more "
        f"(tokenize.max_completion_length is {max_completion_length}): raise the one that is too low"
    )


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preferences", required=True, help="preference pairs (parquet)")
    parser.add_argument("--tokenizer", required=True, help="model directory of the start policy")
    parser.add_argument("--max-prompt-length", type=int, required=True, help="most tokens of a prompt")
    parser.add_argument("--max-completion-length", type=int, required=True, help="most tokens of an answer")
    parser.add_argument("--out", required=True, help="unpadded ids (parquet)")
    parser.add_argument("--metrics", required=True, help="kept and dropped by reason, lengths (json)")
    args = parser.parse_args(argv)

    from transformers import AutoConfig

    tokenizer = chat.load_tokenizer(args.tokenizer)
    config = AutoConfig.from_pretrained(args.tokenizer, trust_remote_code=False)
    vocab_size = config.get_text_config().vocab_size
    counts = {split: Counter() for split in ("train", "test")}
    lengths = {column: [] for column in IDS}
    first, kept = 0, []
    for batch in tables.read(args.preferences, tables.PREFERENCES).to_batches(max_chunksize=ROWS_AT_ONCE):
        rows, read = [], batch.to_pylist()

        def place(number, first=first, read=read):
            return f"{args.preferences}, row {first + number} (prompt_id {read[number]['prompt_id']})"

        for row in with_ids(read, tokenizer, vocab_size, place):
            for column in IDS:
                lengths[column].append(len(row[column]))
            reason = drop_reason(row, args.max_prompt_length, args.max_completion_length)
            counts[row["split"]]["pairs"] += 1
            counts[row["split"]][reason or "kept"] += 1
            if reason is None:
                rows.append({name: row[name] for name in tables.TOKENIZED.names})
        first += len(read)
        kept.append(pa.Table.from_pylist(rows, schema=tables.TOKENIZED))
    metrics = {
        "splits": {
            split: {
                "pairs": count["pairs"],
                "kept": count["kept"],
                "dropped": {reason: count[reason] for reason in REASONS},
            }
            for split, count in counts.items()
        },
        "lengths": {column: percentiles(lengths[column]) for column in IDS},
    }
    for split, count in metrics["splits"].items():
        dropped = ", ".join(f"{reason} {number}" for reason, number in count["dropped"].items())
        print(f"{split}: {count['kept']} of {count['pairs']} pairs kept; dropped: {dropped}")
    for column, values in metrics["lengths"].items():
        shown = ", ".join(f"{percent} % {value}" for percent, value in values.items())
        print(f"{column} (tokens, before dropping): {shown}")
    check_left(metrics, args.max_prompt_length, args.max_completion_length)
    tables.write(args.out, pa.concat_tables(kept), tables.TOKENIZED)
    files.write_json(args.metrics, metrics)


if __name__ == "__main__":
    errors.run(main)

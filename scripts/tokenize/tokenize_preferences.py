"""Turn preference pairs into the token ids that every later step works on, and drop those that are too long.

Sampled pairs keep the ids that the policy sampled: text tokenized again may differ from them. Pairs of an
existing dataset are tokenized here with the start policy's chat template. Nothing is truncated: a pair is
kept whole or dropped, and counted under the first reason that holds:

    identical_ids    chosen and rejected are the same tokens
    long_prompt      more prompt tokens than --max-prompt-length
    long_completion  more tokens in chosen or rejected than --max-completion-length
    long_pair        more tokens in the prompt and the longer of the two than --max-length

A limit is a number of tokens, null, or a percentile of what it limits among the training pairs, such as p95.

    reads   the columns of tables.PREFERENCES
    writes  prompt_id, split, prompt_ids, chosen_ids, rejected_ids (unpadded int32), rewards, win
            probabilities; in order

    python -m scripts.tokenize.tokenize_preferences --preferences results/samples/sft/preferences.parquet \\
        --tokenizer results/models/sft --max-prompt-length 128 --max-completion-length 64 \\
        --max-length null --out tokenized.parquet --metrics tokenized.json
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prefline import errors, files
from prefline.config import section
from prefline.data import tables
from prefline.errors import InputError
from prefline.text import chat

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
LIMITS = ("max_prompt_length", "max_completion_length", "max_length")
REASONS = ("identical_ids", "long_prompt", "long_completion", "long_pair")
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


def vocabulary(path):
    """Rows of the embedding (int) of the model in the directory `path`."""
    config = files.read_json(Path(path, "config.json"))
    if "vocab_size" in config and "text_config" not in config:
        return config["vocab_size"]  # without torch, which the library's configs import
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(path, trust_remote_code=False).get_text_config().vocab_size


def limited(prompt, chosen, rejected):
    """{limit's name: what it limits} of all pairs, from their numbers of tokens (int arrays)."""
    longer = np.maximum(chosen, rejected)
    return {"max_prompt_length": prompt, "max_completion_length": longer, "max_length": prompt + longer}


def resolve(limit, lengths):
    """A limit in tokens (int), or None where there is none.

    limit: int, None, or "p95" for the length that 95 % of `lengths` (int array, may be empty) do not exceed.
    """
    if not isinstance(limit, str):
        return limit
    return int(np.percentile(lengths, int(limit[1:]), method="inverted_cdf")) if len(lengths) else None


def drop_reasons(identical, lengths, limits):
    """Why each pair is dropped: array of str of REASONS, "" where it is kept.

    identical: bool array, whether both completions are the same ids; lengths: as `limited` gives them;
    limits: {limit's name: tokens or None}.
    """
    found = [identical]
    found += [lengths[name] > limits[name] if limits[name] else np.zeros_like(identical) for name in LIMITS]
    return np.select(found, REASONS, "")


def percentiles(lengths):
    """{"50": …, "100": …} of token counts (int array), each a length that occurs; {} of none."""
    if not len(lengths):
        return {}
    values = np.percentile(lengths, PERCENTILES, method="inverted_cdf")
    return {str(percent): int(value) for percent, value in zip(PERCENTILES, values, strict=True)}


def split_counts(reasons):
    """The counts of a split's pairs, and of those kept and dropped, from their `drop_reasons`."""
    counts = Counter(reasons.tolist())
    return {
        "pairs": counts.total(),
        "kept": counts[""],
        "dropped": {reason: counts[reason] for reason in REASONS},
    }


def check_left(metrics):
    """Raise InputError, with what to raise to which value, if no training pair is left."""
    train, lengths = metrics["splits"]["train"], metrics["lengths"]
    if train["kept"]:
        return
    longest = {column: lengths[column].get("50", 0) for column in IDS}
    limits = ", ".join(f"tokenize.{name} is {limit}" for name, limit in metrics["limits"].items())
    raise InputError(
        f"no training pair is left of {train['pairs']}: {train['dropped']}; half of the prompts have "
        f"{longest['prompt_ids']} tokens or more, half of the answers "
        f"{max(longest['chosen_ids'], longest['rejected_ids'])} or more; {limits}: raise what is too low"
    )


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--preferences", required=True, help="preference pairs (parquet)")
    parser.add_argument("--tokenizer", required=True, help="model directory of the start policy")
    section.add(parser, "tokenize")
    parser.add_argument("--out", required=True, help="unpadded ids (parquet)")
    parser.add_argument("--metrics", required=True, help="kept and dropped by reason, lengths (json)")
    args = parser.parse_args(argv)

    tokenizer, vocab_size = chat.load_tokenizer(args.tokenizer), vocabulary(args.tokenizer)
    first, parts, identical = 0, [], []
    for batch in tables.read(args.preferences, tables.PREFERENCES).to_batches(max_chunksize=ROWS_AT_ONCE):
        read = batch.to_pylist()

        def place(number, first=first, read=read):
            return f"{args.preferences}, row {first + number} (prompt_id {read[number]['prompt_id']})"

        rows = with_ids(read, tokenizer, vocab_size, place)
        identical += [row["chosen_ids"] == row["rejected_ids"] for row in rows]
        parts.append(pa.Table.from_pylist(rows, schema=tables.TOKENIZED))
        first += len(read)
    pairs = pa.concat_tables(parts)
    counts = {column: pc.list_value_length(pairs[column]).to_numpy() for column in IDS}
    lengths = limited(*counts.values())
    splits = pairs["split"].to_numpy()
    limits = {name: resolve(getattr(args, name), lengths[name][splits == "train"]) for name in LIMITS}
    reasons = drop_reasons(np.array(identical), lengths, limits)
    metrics = {
        "splits": {split: split_counts(reasons[splits == split]) for split in ("train", "test")},
        "lengths": {column: percentiles(counts[column]) for column in IDS},
        "limits": limits,
    }
    for split, count in metrics["splits"].items():
        dropped = ", ".join(f"{reason} {number}" for reason, number in count["dropped"].items())
        print(f"{split}: {count['kept']} of {count['pairs']} pairs kept; dropped: {dropped}")
    for column, values in metrics["lengths"].items():
        shown = ", ".join(f"{percent} % {value}" for percent, value in values.items())
        print(f"{column} (tokens, before dropping): {shown}")
    print(f"limits in tokens: {limits}")
    check_left(metrics)
    tables.write(args.out, pairs.filter(pa.array(reasons == "")), tables.TOKENIZED)
    files.write_json(args.metrics, metrics)


if __name__ == "__main__":
    errors.run(main)

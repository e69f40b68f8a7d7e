"""Turn preference pairs into the token ids that every later step works on, and drop those that are too long.

Sampled pairs keep the ids that the policy sampled: text tokenized again may differ from them. Pairs of an
existing dataset are tokenized here with the start policy's chat template. Of a completion with a label, which
kto learns from, the other side is null. Nothing is truncated: a pair is kept whole or dropped, and counted
under the first reason that holds:

    template         the chat template cannot render it, or drops some of its text
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
        --max-length null --max-dropped 0.2 --out tokenized.parquet --metrics tokenized.json
"""

import array
from collections import Counter
from pathlib import Path

import numpy as np

from prefline import errors, files
from prefline.config import section
from prefline.data import messages, tables
from prefline.data.counts import Counts
from prefline.errors import InputError
from prefline.text import chat

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
SIDES = ("chosen", "rejected")
LIMITS = ("max_prompt_length", "max_completion_length", "max_length")
REASONS = ("template", "identical_ids", "long_prompt", "long_completion", "long_pair")
PERCENTILES = (50, 90, 95, 99, 100)
ROWS_AT_ONCE = 1000  # bounds the memory that ids take as Python integers


def with_ids(rows, tokenizer, vocab_size, place, counts):
    """Return `rows` (list of dict) with the ids of their prompts and answers, made for those that have none.

    vocab_size: int, rows of the model's embedding, which may be more than the tokenizer's tokens; counts:
    counts.Counts, which counts rows that the template refuses as dropped: they have no ids. Raises
    InputError, which begins with place(number of the row), for an id outside the vocabulary and for an
    empty answer.
    """
    texts = [number for number, row in enumerate(rows) if row["prompt_ids"] is None]
    try:
        made = _made(rows, texts, tokenizer)
    except InputError:  # some row: which ones?
        made = []
        for number in texts:
            try:
                made += _made(rows, [number], tokenizer)
            except InputError as error:
                made.append(None)
                counts.drop(place(number), messages.refused(rows[number]["messages"], error))
    for number, found in zip(texts, made, strict=True):
        if found is not None:
            prompt, answers = found
            rows[number] |= {"prompt_ids": prompt}
            rows[number] |= {
                f"{side}_ids": ids for side, ids in zip(_sides(rows[number]), answers, strict=True)
            }
    for number, row in enumerate(rows):
        counts.read += 1
        for column in IDS if row["prompt_ids"] is not None else ():
            if row[column] is None and None in (row["chosen"], row["rejected"]):
                continue
            if not row[column]:
                raise InputError(f"{place(number)}: {column} has no tokens")
            if min(row[column]) < 0 or max(row[column]) >= vocab_size:
                raise InputError(
                    f"{place(number)}: {column} has an id outside the vocabulary of {vocab_size} tokens; "
                    "pairs must come from models with the start policy's tokenizer"
                )
    return rows


def _sides(row):
    return [side for side in SIDES if row[side] is not None]


def _made(rows, numbers, tokenizer):
    dialogues = [
        (rows[number]["messages"], [rows[number][side] for side in _sides(rows[number])])
        for number in numbers
    ]
    return chat.prompts_and_completions(tokenizer, dialogues)


def vocabulary(path):
    """Return rows of the embedding (int) of the model in the directory `path`."""
    config = files.read_json(Path(path, "config.json"))
    if "vocab_size" in config and "text_config" not in config:
        return config["vocab_size"]  # without torch, which the library's configs import
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(path, trust_remote_code=False).get_text_config().vocab_size


def limited(prompt, chosen, rejected):
    """Return {limit's name: what it limits} of all pairs, from their numbers of tokens (int arrays)."""
    longer = np.maximum(chosen, rejected)
    return {"max_prompt_length": prompt, "max_completion_length": longer, "max_length": prompt + longer}


def resolve(limit, lengths):
    """Return a limit in tokens (int), or None where there is none.

    limit: int, None, or "p95" for the length that 95 % of `lengths` (int array, may be empty) do not exceed.
    """
    if not isinstance(limit, str):
        return limit
    return int(np.percentile(lengths, int(limit[1:]), method="inverted_cdf")) if len(lengths) else None


def drop_reasons(refused, identical, lengths, limits):
    """Return the reason why each pair is dropped: array of str of REASONS, "" for a kept pair.

    refused, identical: bool arrays, whether the template refuses the pair, and whether both completions are
    the same ids; lengths: as `limited` returns them; limits: {limit's name: tokens or None}.
    """
    found = [refused, identical]
    found += [lengths[name] > limits[name] if limits[name] else np.zeros_like(identical) for name in LIMITS]
    return np.select(found, REASONS, "")


def percentiles(lengths):
    """Return {"50": …, "100": …} of token counts (int array), each a length that occurs; {} of none."""
    if not len(lengths):
        return {}
    values = np.percentile(lengths, PERCENTILES, method="inverted_cdf")
    return {str(percent): int(value) for percent, value in zip(PERCENTILES, values, strict=True)}


def split_counts(reasons):
    """Return the counts of a split's pairs, and of those kept and dropped, from their `drop_reasons`."""
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


class Seen:
    """Numbers of tokens, splits and faults of pairs that are already written, which decide about each."""

    def __init__(self):
        self.lengths = {column: array.array("i") for column in IDS}
        self.tests, self.refused, self.identical = bytearray(), bytearray(), bytearray()

    def add(self, rows):
        """Add `rows` (list of dict), as `with_ids` returns them."""
        for row in rows:
            for column, lengths in self.lengths.items():
                lengths.append(len(row[column] or ()))
            self.tests.append(row["split"] == "test")
            self.refused.append(row["prompt_ids"] is None)
            self.identical.append(row["chosen_ids"] == row["rejected_ids"])

    def kept(self, limits):
        """Return (places of the kept rows (int array), metrics); limits: {name: as `resolve` takes it}."""
        counts = {column: np.array(lengths, np.int32) for column, lengths in self.lengths.items()}
        tests, refused, identical = (
            np.frombuffer(flags, bool) for flags in (self.tests, self.refused, self.identical)
        )
        lengths = limited(*counts.values())
        limits = {name: resolve(limit, lengths[name][~tests]) for name, limit in limits.items()}
        reasons = drop_reasons(refused, identical, lengths, limits)
        metrics = {
            "splits": {"train": split_counts(reasons[~tests]), "test": split_counts(reasons[tests])},
            "lengths": {column: percentiles(values) for column, values in counts.items()},
            "limits": limits,
        }
        return np.flatnonzero(reasons == ""), metrics


def show(metrics):
    """Print the counts, lengths and limits."""
    for split, count in metrics["splits"].items():
        dropped = ", ".join(f"{reason} {number}" for reason, number in count["dropped"].items())
        print(f"{split}: {count['kept']} of {count['pairs']} pairs kept; dropped: {dropped}")
    for column, values in metrics["lengths"].items():
        shown = ", ".join(f"{percent} % {value}" for percent, value in values.items())
        print(f"{column} (tokens, before dropping): {shown}")
    print(f"limits in tokens: {metrics['limits']}")


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--preferences", required=True, help="preference pairs (parquet)")
    parser.add_argument("--tokenizer", required=True, help="model directory of the start policy")
    section.add(parser, "tokenize")
    section.add(parser, "data", "max_dropped")
    parser.add_argument("--out", required=True, help="unpadded ids (parquet)")
    parser.add_argument("--metrics", required=True, help="kept and dropped by reason, lengths (json)")
    args = parser.parse_args(argv)

    tokenizer, vocab_size = chat.load_tokenizer(args.tokenizer), vocabulary(args.tokenizer)
    read_counts, seen = Counts(args.preferences), Seen()
    with tables.Writer(args.out, tables.TOKENIZED) as pairs:
        for batch in tables.batches(args.preferences, tables.PREFERENCES, ROWS_AT_ONCE):
            first, read = len(seen.tests), batch.to_pylist()

            def place(number, first=first, read=read):
                return f"{args.preferences}, row {first + number} (prompt_id {read[number]['prompt_id']})"

            rows = with_ids(read, tokenizer, vocab_size, place, read_counts)
            seen.add(rows)
            pairs.add(rows)
        read_counts.check(args.max_dropped)
        kept, metrics = seen.kept({name: getattr(args, name) for name in LIMITS})
        show(metrics)
        check_left(metrics)
        if len(kept) < len(seen.tests):
            pairs.keep(kept)
    files.write_json(args.metrics, metrics)


if __name__ == "__main__":
    errors.run(main)

"""Log-probabilities of preference pairs under the reference policy, once, before any training.

Training then needs no second model in memory, and every loss and every run of a sweep shares them. Stored
are the sums over the completion's tokens (the end token included) and the numbers of tokens, so that losses
by sequence and by token both work. The jobs of one file divide its rows: part k of n takes rows
[rows·k/n, rows·(k+1)/n), in the file's order, and reads PAIRS_AT_ONCE at a time. A sequence that the journal
has is not computed again, and without a missing one no model is loaded.

    reads   prompt_id, prompt_ids, chosen_ids, rejected_ids
    writes  prompt_id, ref_chosen_logps, ref_rejected_logps (float32), chosen_tokens, rejected_tokens;
            metadata: what they are of (ref_logps.origin)

    python -m scripts.logps.compute_ref_logps --tokenized results/samples/sft/tokenized.parquet \
        --model results/models/sft --part 0000 --num-shards 1 --temperature 1.0 --batch-tokens 16384 \
        --dtype float32 --attn-implementation sdpa --journal work/journal \
        --out results/samples/sft/ref_logps/sft/0000.parquet
"""

import math
import time

import pyarrow as pa
import pyarrow.compute as pc

from prefline import errors
from prefline.config import section
from prefline.data import tables
from prefline.errors import InputError
from prefline.provenance import journal, manifest
from prefline.training import ref_logps

# The Python packages that shape log-probabilities.
PACKAGES = ("torch", "transformers")
SIDES = ("chosen", "rejected")
# Pairs that are in memory together, whose sequences are sorted by length into batches.
PAIRS_AT_ONCE = 10_000


def part_of(rows, part, num_shards):
    """Return (start, end) of the rows of part `part` of `num_shards`; together they have all `rows` (int)."""
    return tuple(rows * number // num_shards for number in (part, part + 1))


def check_finite(prompt_id, side, logps, where):
    """Raise InputError if the log-probability `logps` (float) of a pair's `side` is NaN or infinite."""
    if not math.isfinite(logps):
        raise InputError(
            f"{where}, prompt_id {prompt_id}: ref_{side}_logps is {logps}; the reference's weights "
            "are broken, or logps.dtype is too narrow for them"
        )


class Scorer:
    """The reference, which is loaded when a row is missing."""

    def __init__(self, args):
        self.args = args
        self.model = None

    def compute(self, missing, pairs, first_row):
        """Yield {key: log-probability} batch by batch for `missing`: {key: (row, "chosen" or "rejected")}.

        pairs: Table of rows, first_row: number of the first in args.tokenized; their ids are checked.
        """
        from prefline.training import logps

        args = self.args
        if self.model is None:
            self.model = logps.load(args.model, args.dtype, args.attn_implementation)
        vocabulary = self.model.get_input_embeddings().num_embeddings
        ref_logps.check_ids(pairs, vocabulary, args.tokenized, first_row)
        keys, places = list(missing), list(missing.values())
        ids = {name: tables.arrays(pairs[name]) for name in ref_logps.IDS}
        prompts = [ids["prompt_ids"][row] for row, _ in places]
        completions = [ids[f"{side}_ids"][row] for row, side in places]
        start = time.perf_counter()
        for group, sums in logps.score(self.model, prompts, completions, args.temperature, args.batch_tokens):
            for number, value in zip(group, sums, strict=True):
                row, side = places[number]
                check_finite(pairs["prompt_id"][row], side, value, args.tokenized)
            yield {keys[number]: value for number, value in zip(group, sums, strict=True)}
        seconds = time.perf_counter() - start
        tokens = sum(map(len, prompts)) + sum(map(len, completions))
        print(f"{len(keys)} sequences, {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} tokens/s")


def keys_of(pairs):
    """Return {side: [journal's key of each pair's sequence]} of a Table."""
    keys = {side: [] for side in SIDES}
    for start in range(0, len(pairs), tables.ROWS_AT_ONCE):
        for row in pairs.slice(start, tables.ROWS_AT_ONCE).select(ref_logps.IDS).to_pylist():
            for side in SIDES:
                keys[side].append(journal.key(row["prompt_ids"], row[f"{side}_ids"]))
    return keys


def scored(pairs, keys, sums):
    """Return the log-probabilities of pairs (Table of tables.REF_LOGPS); sums: {key: log-probability}."""
    columns = [pairs["prompt_id"]]
    columns += [pa.array([sums[key] for key in keys[side]], pa.float32()) for side in SIDES]
    columns += [pc.list_value_length(pairs[f"{side}_ids"]) for side in SIDES]
    return pa.table(columns, schema=tables.REF_LOGPS)


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--tokenized", required=True, help="tokenized pairs (parquet)")
    parser.add_argument("--model", required=True, help="directory of the reference policy")
    parser.add_argument("--part", required=True, help="which part of the rows, from 0000")
    section.add(parser, "logps")
    section.add(parser, "training_defaults", "attn_implementation")
    parser.add_argument("--batch-tokens", type=int, required=True, help="tokens of a forward pass")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--out", required=True, help="log-probabilities of this part's rows (parquet)")
    args = parser.parse_args(argv)

    shaped_by = journal.context(
        "scripts/logps/compute_ref_logps.py",
        args.model,
        PACKAGES,
        temperature=args.temperature,
        dtype=args.dtype,
        attn_implementation=args.attn_implementation,
    )
    cached, scorer = journal.Journal(args.journal, "ref_logps", shaped_by, args.model), Scorer(args)
    with tables.opened(args.tokenized, tables.TOKENIZED) as file:
        start, end = part_of(file.metadata.num_rows, int(args.part), args.num_shards)

    def column(name):
        return tables.read_column(args.tokenized, tables.TOKENIZED, name, start, end - start)

    about = ref_logps.origin(column, manifest.contents(args.model), args.temperature)
    with tables.Writer(args.out, tables.REF_LOGPS, about) as out:
        for first in range(start, end, PAIRS_AT_ONCE):
            number = min(PAIRS_AT_ONCE, end - first)
            pairs = tables.read_slice(args.tokenized, tables.TOKENIZED, first, number)
            keys = keys_of(pairs)
            wanted = {name: (row, side) for side in SIDES for row, name in enumerate(keys[side])}
            sums = cached.rows(
                wanted, lambda missing, pairs=pairs, first=first: scorer.compute(missing, pairs, first)
            )
            out.add(scored(pairs, keys, sums))
    print(f"{end - start} pairs have their reference log-probabilities")


if __name__ == "__main__":
    errors.run(main)

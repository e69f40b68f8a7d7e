"""Log-probabilities of preference pairs under the reference policy, once, before any training.

Training then needs no second model in memory, and every loss and every run of a sweep shares them. Stored
are the sums over the completion's tokens (the end token included) and the numbers of tokens, so that losses
by sequence and by token both work. The jobs of one file divide its rows: part k of n takes rows
[rows·k/n, rows·(k+1)/n), in the file's order. A sequence that the journal has is not computed again, and
without a missing one no model is loaded.

    reads   prompt_id, prompt_ids, chosen_ids, rejected_ids
    writes  prompt_id, ref_chosen_logps, ref_rejected_logps (float32), chosen_tokens, rejected_tokens;
            metadata: what they are of (ref_logps.origin)

    python -m scripts.logps.compute_ref_logps --tokenized results/samples/sft/tokenized.parquet \
        --model results/models/sft --part 0000 --num-shards 1 --temperature 1.0 --batch-tokens 16384 \
        --dtype float32 --journal work/journal --out results/samples/sft/ref_logps/sft/0000.parquet
"""

import math
import time

from prefline import errors
from prefline.config import section
from prefline.data import tables
from prefline.errors import InputError
from prefline.provenance import journal, manifest
from prefline.training import ref_logps

# The Python packages that shape log-probabilities.
PACKAGES = ("torch", "transformers")


def part_of(rows, part, num_shards):
    """(the rows of part `part` of `num_shards`, the number of the first); together the parts hold all once.

    rows: Table.
    """
    start, end = (len(rows) * number // num_shards for number in (part, part + 1))
    return rows.slice(start, end - start), start


def check_finite(row, side, logps, where):
    """Raise InputError if the log-probability `logps` (float) of a row's `side` is NaN or infinite."""
    if not math.isfinite(logps):
        raise InputError(
            f"{where}, prompt_id {row['prompt_id']}: ref_{side}_logps is {logps}; the reference's weights "
            "are broken, or logps.dtype is too narrow for them"
        )


def compute(args, missing, pairs, first_row):
    """Yield {key: log-probability} batch by batch for `missing`: {key: (row, "chosen" or "rejected")}.

    pairs: Table of this part's rows, first_row: number of the first in args.tokenized; their ids are checked.
    """
    from prefline.training import logps

    model = logps.load(args.model, args.dtype)
    keys, sequences = list(missing), list(missing.values())
    ref_logps.check_ids(pairs, model.get_input_embeddings().num_embeddings, args.tokenized, first_row)

    prompts = [row["prompt_ids"] for row, _ in sequences]
    completions = [row[f"{side}_ids"] for row, side in sequences]
    start = time.perf_counter()
    for group, sums in logps.score(model, prompts, completions, args.temperature, args.batch_tokens):
        for number, value in zip(group, sums, strict=True):
            check_finite(*sequences[number], value, args.tokenized)
        yield {keys[number]: value for number, value in zip(group, sums, strict=True)}
    seconds = time.perf_counter() - start
    tokens = sum(map(len, prompts)) + sum(map(len, completions))
    print(f"{len(keys)} sequences, {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} tokens/s")


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--tokenized", required=True, help="tokenized pairs (parquet)")
    parser.add_argument("--model", required=True, help="directory of the reference policy")
    parser.add_argument("--part", required=True, help="which part of the rows, from 0000")
    section.add(parser, "logps")
    parser.add_argument("--batch-tokens", type=int, required=True, help="tokens of a forward pass")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--out", required=True, help="log-probabilities of this part's rows (parquet)")
    args = parser.parse_args(argv)
    tokenized = tables.read(args.tokenized, tables.TOKENIZED)
    pairs, first_row = part_of(tokenized, int(args.part), args.num_shards)
    rows = pairs.to_pylist()

    shaped_by = journal.context(
        "scripts/logps/compute_ref_logps.py",
        args.model,
        PACKAGES,
        temperature=args.temperature,
        dtype=args.dtype,
    )
    keys = {
        side: [journal.key(row["prompt_ids"], row[f"{side}_ids"]) for row in rows]
        for side in ("chosen", "rejected")
    }
    sums = journal.Journal(args.journal, "ref_logps", shaped_by, args.model).rows(
        {name: (row, side) for side in keys for name, row in zip(keys[side], rows, strict=True)},
        lambda missing: compute(args, missing, pairs, first_row),
    )
    scored = [
        {
            "prompt_id": row["prompt_id"],
            "ref_chosen_logps": sums[chosen],
            "ref_rejected_logps": sums[rejected],
            "chosen_tokens": len(row["chosen_ids"]),
            "rejected_tokens": len(row["rejected_ids"]),
        }
        for row, chosen, rejected in zip(rows, keys["chosen"], keys["rejected"], strict=True)
    ]
    about = ref_logps.origin(pairs, manifest.contents(args.model), args.temperature)
    tables.write(args.out, scored, tables.REF_LOGPS, about)
    print(f"{len(rows)} pairs have their reference log-probabilities")


if __name__ == "__main__":
    errors.run(main)

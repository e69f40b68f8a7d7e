"""Reward the completions of a shard by a tournament: how likely each is to beat another one to its prompt.

A pairwise model compares texts that differ; equal ones, and each with itself, count 1/2. The tournament of a
prompt is full, or sampled: see prefline/rewards/tournament.py. The reward is the mean, `parts` are the
probabilities of beating each sample, in the order of the samples, null where two did not meet. A comparison
that the journal has, with its two answers in either order, is not made again, and without a missing one no
model is loaded.

    python -m scripts.rewards.compare_completions --prompts results/samples/sft/prompts/train-00000.parquet \\
        --completions results/samples/sft/completions/train-00000.parquet \\
        --model results/models/pair_rm --opponents 0 --seed 1 --batch-tokens 16384 --dtype float32 \\
        --journal work/journal --out results/samples/sft/rewards/pair_rm/train-00000.parquet
"""

from prefline import errors, rewards
from prefline.config import section
from prefline.provenance import journal
from prefline.rewards import pairwise, shard, tournament


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--prompts", required=True, help="prompts of the shard (parquet)")
    parser.add_argument("--completions", required=True, help="completions of the shard (parquet)")
    parser.add_argument("--model", required=True, help="the model's directory")
    parser.add_argument("--batch-tokens", type=int, required=True, help="most tokens in one forward pass")
    section.add(parser, "rewards.NAME", "dtype", "opponents")
    section.add(parser, "seed")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--out", required=True, help="rewards of the shard (parquet)")
    args = parser.parse_args(argv)

    rows, dialogues = shard.read(args.prompts, args.completions)

    shaped_by = journal.context(
        "scripts/rewards/compare_completions.py", args.model, rewards.PACKAGES, dtype=args.dtype
    )

    def batches(missing):
        yield from pairwise.load(args.model, args.batch_tokens, args.dtype).batches(missing)

    def compare(comparisons):
        return shard.compare(args.journal, shaped_by, args.model, comparisons, batches)

    prompt_ids, samples = ([row[column] for row in rows] for column in ("prompt_id", "sample"))
    scored = tournament.rewards(dialogues, prompt_ids, samples, args.opponents, args.seed, compare)
    shard.write(args.out, rows, scored)


if __name__ == "__main__":
    errors.run(main)

"""Score every completion of a shard with a reward model that reads one answer at a time.

Each dialogue is rendered with the reward model's own chat template: the policy's ids mean nothing to a model
with another tokenizer. Scores are float32 whatever the dtype of the model's body, and do not depend on the
batch: rows are padded on the right and read at their last real token. A dialogue that the journal has a score
of is not scored again, and without a missing one no model is loaded.

    python -m scripts.rewards.score_completions --prompts results/samples/sft/prompts/train-00000.parquet \\
        --completions results/samples/sft/completions/train-00000.parquet \\
        --model results/models/reward_model --head-weights null --batch-tokens 16384 --dtype float32 \\
        --journal work/journal --out results/samples/sft/rewards/reward_model/train-00000.parquet
"""

from prefline import errors, rewards
from prefline.config import section
from prefline.provenance import journal
from prefline.rewards import scorers, shard


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--prompts", required=True, help="prompts of the shard (parquet)")
    parser.add_argument("--completions", required=True, help="completions of the shard (parquet)")
    parser.add_argument("--model", required=True, help="the model's directory")
    parser.add_argument("--batch-tokens", type=int, required=True, help="most tokens in one forward pass")
    section.add(parser, "rewards.NAME", "dtype", "head_weights")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--out", required=True, help="rewards of the shard (parquet)")
    args = parser.parse_args(argv)

    rows, dialogues = shard.read(args.prompts, args.completions)
    shaped_by = journal.context(
        "scripts/rewards/score_completions.py",
        args.model,
        rewards.PACKAGES,
        dtype=args.dtype,
        head_weights=args.head_weights,
    )

    def batches(missing):
        model = scorers.load(args.model, args.batch_tokens, args.dtype, args.head_weights)
        yield from model.batches(missing)

    scored = shard.score(args.journal, shaped_by, args.model, dialogues, batches)
    shard.write(args.out, rows, scored)


if __name__ == "__main__":
    errors.run(main)

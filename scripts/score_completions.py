"""Score every completion of a shard with the reward model.

Each dialogue is rendered with the reward model's own chat template: the policy's ids mean nothing to a model
with another tokenizer. Scores are float32 whatever the dtype of the model's body, and do not depend on the
batch: rows are padded on the right and read at their last real token. A dialogue that the journal has a score
of is not scored again, and without a missing one no model is loaded.

    reads   prompts (prompt_id, messages), completions (prompt_id, sample, completion)
    writes  prompt_id, sample, reward: float32, in the order of the completions

    python -m scripts.score_completions --prompts results/samples/sft/prompts/train-00000.parquet \\
        --completions results/samples/sft/completions/train-00000.parquet \\
        --model results/models/reward_model --batch-tokens 16384 --dtype float32 \\
        --journal work/journal --out results/samples/sft/rewards/train-00000.parquet
"""

import argparse
import time

from scripts.common import errors, journal, rewards, tables
from scripts.common.errors import InputError


def dialogues(prompts, completions, path):
    """The `rewards.Dialogue` of every row of `completions` (list of dicts), in order.

    prompts: list of dicts. path: str, where the completions come from, for messages. Raises InputError for a
    completion of a prompt that is not there.
    """
    messages = {row["prompt_id"]: row["messages"] for row in prompts}
    found = []
    for row in completions:
        where = f"{path}: prompt_id {row['prompt_id']}, sample {row['sample']}"
        if row["prompt_id"] not in messages:
            raise InputError(
                f"{where}: the shard's prompts do not have it; delete this file and generate it again"
            )
        found.append(rewards.Dialogue(messages[row["prompt_id"]], row["completion"], where))
    return found


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", required=True, help="prompts of the shard (parquet)")
    parser.add_argument("--completions", required=True, help="completions of the shard (parquet)")
    parser.add_argument("--model", required=True, help="reward model directory")
    parser.add_argument("--batch-tokens", type=int, required=True, help="most tokens scored together")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        required=True,
        help="of the model's body; scores are float32",
    )
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--out", required=True, help="rewards of the shard (parquet)")
    args = parser.parse_args(argv)

    completions = tables.read_rows(args.completions, tables.COMPLETIONS)
    todo = dialogues(tables.read_rows(args.prompts, tables.PROMPTS), completions, args.completions)
    shaped_by = journal.context("score_completions", args.model, rewards.PACKAGES, dtype=args.dtype)

    def make(missing):
        model = rewards.load(args.model, args.batch_tokens, args.dtype)
        keys, started = list(missing), time.perf_counter()
        for batch, scores in model.batches(list(missing.values())):
            yield {keys[number]: score for number, score in zip(batch, scores.tolist(), strict=True)}
        seconds = time.perf_counter() - started
        print(f"{len(keys)} scored in {seconds:.1f} s, {len(keys) / max(seconds, 1e-9):.0f} per second")

    keys = [journal.key(dialogue.messages, dialogue.completion) for dialogue in todo]
    made = journal.Journal(args.journal, "rewards", shaped_by, args.model).rows(
        dict(zip(keys, todo, strict=True)), make
    )
    scores = [made[name] for name in keys]
    rows = [
        {"prompt_id": row["prompt_id"], "sample": row["sample"], "reward": score}
        for row, score in zip(completions, scores, strict=True)
    ]
    tables.write(args.out, rows, tables.REWARDS)
    print(f"{len(rows)} completions have a reward")
    if rows:
        mean = sum(scores) / len(scores)
        print(f"reward: mean {mean:.4f}, min {min(scores):.4f}, max {max(scores):.4f}")


if __name__ == "__main__":
    errors.run(main)

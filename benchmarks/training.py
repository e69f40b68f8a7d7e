"""DPO training: the project's trainer beside the published recipe's loop and TRL's DPOTrainer.

A table of pairs/s, ratios by the clock and in CPU time, and memory, from one process after another on the
same pairs, weights and reference log-probabilities; loading, tokenizing and the reference are not counted.
All take global batches of 8 pairs in float32 and keep their activations. The others are

- `published`: prompts padded to 1024 and completions to 2048 tokens, a pair at a time, the log-softmax of the
  logits of all positions, as in the REBEL recipe; on fewer pairs, for its time depends on nothing in them;
- `TRL`: DPOTrainer with precompute_ref_log_probs, two batches of 4 pairs in a step, as ours.

Then ours and TRL's take 50 steps of a small model, with answers cut short: their losses agree step by step to
1e-4, or the run fails. --texts and the model are as in benchmarks/logps.py.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python -m benchmarks.training --texts answers.jsonl
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import pairs as benchmark

WAYS = ("ours", "published", "TRL")
TOLERANCE = 1e-4
BETA, BATCH, ROWS = 0.1, 8, 4  # pairs of a step, and of a forward pass
SMALL = {"layers": 4, "hidden_size": 128}
SHORT = 48  # tokens of a prompt or completion there


def add_reference(directory):
    """Write the start model's own log-probabilities to the pairs."""
    from scripts.common import logps

    model, pairs = benchmark.load(directory)
    logps.prepare(model)
    for side in ("chosen", "rejected"):
        columns = [[pair[name] for pair in pairs] for name in ("prompt_ids", f"{side}_ids")]
        for indices, sums in logps.score(model.eval(), *columns, 1.0, 4096):
            for index, value in zip(indices, sums, strict=True):
                pairs[index][f"ref_{side}_logps"] = value
    (Path(directory) / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")


def arguments(directory, args):
    return dict(
        output_dir=directory,
        learning_rate=args.learning_rate,
        per_device_train_batch_size=ROWS,
        gradient_accumulation_steps=BATCH // ROWS,
        num_train_epochs=1,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=args.seed,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def losses(trainer):
    """What `measured` gives of a training; found: the loss of every step."""
    made = benchmark.measured(trainer.train)
    return made | {"found": [step["loss"] for step in trainer.state.log_history if "loss" in step]}


def ours(model, pairs, directory, args):
    import pyarrow as pa
    from transformers import TrainingArguments

    from scripts.common import logps
    from scripts.common import losses as formulas
    from scripts.common.preference_trainer import COLUMNS, Pairs, PreferenceTrainer

    logps.prepare(model)
    rows, values = pa.Table.from_pylist(pairs), {"beta": BETA, "label_smoothing": 0.0}
    for name in set(COLUMNS) - set(rows.column_names):
        rows = rows.append_column(name, pa.nulls(len(pairs), pa.float32()))
    return losses(
        PreferenceTrainer(
            model=model,
            args=TrainingArguments(**arguments(directory, args)),
            train_dataset=Pairs(rows),
            pair_loss=lambda batch: formulas.total(batch, "sigmoid", values),
            implied_rewards=lambda batch: formulas.implied_rewards(batch, "sigmoid", values),
            temperature=1.0,
        )
    )


def trl(model, pairs, directory, args):
    """Its own tokenizing and reference pass take a row that is not looked at: the pairs are the same ids."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    class WithReference(DPOTrainer):
        def _precompute_ref_logps(self, dataset, name, batch_size):
            return Dataset.from_list(pairs)

    made = arguments(directory, args)
    return losses(
        WithReference(
            model,
            args=DPOConfig(**made, beta=BETA, precompute_ref_log_probs=True, max_length=None),
            train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
            processing_class=AutoTokenizer.from_pretrained(args.model, trust_remote_code=False),
        )
    )


def published(model, pairs, directory, args):
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate)
    model.train()

    def work():
        for pair in pairs[: args.published_pairs]:
            completions = [pair["chosen_ids"], pair["rejected_ids"]]
            reference = torch.tensor([pair["ref_chosen_logps"], pair["ref_rejected_logps"]])
            chosen, rejected = benchmark.published(model, pair["prompt_ids"], completions) - reference
            loss = -torch.nn.functional.logsigmoid(BETA * (chosen - rejected))
            (loss / args.published_pairs).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return benchmark.measured(work)


def main():
    parser = benchmark.parser(__doc__)
    parser.add_argument("--steps", type=int, default=50, help="of the small model")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--published-pairs", type=int, default=2)
    args = parser.parse_args()
    if args.measure:
        model, pairs = benchmark.load(args.model)
        with tempfile.TemporaryDirectory() as directory:
            way = {"ours": ours, "published": published, "TRL": trl}[args.measure]
            print(f"MEASURED {json.dumps(way(model, pairs, directory, args))}")
        return
    if args.pairs % BATCH:
        parser.error(f"--pairs must be a multiple of {BATCH}")
    with tempfile.TemporaryDirectory() as model:
        benchmark.make(model, args)
        add_reference(model)
        made = {which: benchmark.in_a_process("benchmarks.training", which, model) for which in WAYS}
    benchmark.table(made, dict.fromkeys(made, args.pairs) | {"published": args.published_pairs})
    print(f"\nthe same training, {args.steps} steps:")
    with tempfile.TemporaryDirectory() as model:
        small = argparse.Namespace(**vars(args) | SMALL | {"pairs": BATCH * args.steps})
        benchmark.make(model, small, SHORT)
        add_reference(model)
        one, other = (
            np.array(benchmark.in_a_process("benchmarks.training", which, model)["found"])
            for which in ("ours", "TRL")
        )
    print(f"loss {one[0]:.4f} -> {one[-1]:.4f} ours, {other[0]:.4f} -> {other[-1]:.4f} TRL's")
    apart = np.abs(one - other).max()
    if len(one) != args.steps or not apart <= TOLERANCE:
        sys.exit(f"{len(one)} losses differ by {apart:.1e}, more than {TOLERANCE}")
    print(f"{args.steps} losses differ by {apart:.0e} at most")


if __name__ == "__main__":
    main()

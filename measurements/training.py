"""DPO training: the project's trainer beside the published recipe's loop and TRL's DPOTrainer.

A table of pairs/s, ratios by the clock and in CPU time, and memory, from one process after another on the
same pairs, weights and reference log-probabilities; loading, tokenizing, the reference and, on a GPU, the
first step are not counted. All take the same global batches. With --dtype bfloat16, weights are float32 and
products bfloat16; with --peft, as in the config, weights are bfloat16 or quantized, and the adapters are
trained. The others are

- `published`: prompts padded to 1024 and completions to 2048 tokens, a pair at a time, the log-softmax of the
  logits of all positions, as in the REBEL recipe; on fewer pairs, for its time depends on nothing in them;
- `TRL`: DPOTrainer with precompute_ref_log_probs, as many pairs at once as ours.

Then ours and TRL's take 50 steps of a small model in float32, with answers cut short: their losses agree step
by step to 1e-4, or the run fails. --texts and the model are as in measurements/logps.py.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python -m measurements.training --texts answers.jsonl
    python -m measurements.training --texts answers.jsonl --pairs 128 --dtype bfloat16 --layers 32 \
        --hidden-size 4096 --intermediate-size 14336 --heads 32 --kv-heads 8 --vocabulary 128256 \
        --peft '{"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}'
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from measurements import pairs as benchmark

WAYS = ("ours", "published", "TRL")
TOLERANCE = 1e-4
BETA = 0.1
SMALL = {
    **{"layers": 4, "hidden_size": 128, "intermediate_size": None, "heads": None, "kv_heads": None},
    **{"vocabulary": 8192, "dtype": "float32", "peft": None, "global_batch_size": 8, "rows": 4},
}
SHORT = 48  # tokens of a prompt or completion there


def load(args):
    """(model, pairs) as a training takes them."""
    from transformers import AutoModelForCausalLM

    from prefline.training import adapters

    model, pairs = benchmark.load(args, "float32" if args.peft is None else args.dtype)
    if args.peft is None:
        return model, pairs
    if "quantization" in args.peft:
        if not any(Path(args.model).glob("*.safetensors")):
            model.save_pretrained(args.model)
        model = adapters.load_frozen(args.model, AutoModelForCausalLM, args.dtype, args.peft["quantization"])
    model = adapters.put_on(model, args.peft)
    if args.gradient_checkpointing:
        model.enable_input_require_grads()
    return model, pairs


def add_reference(model, pairs, directory, args):
    """Write the start model's own log-probabilities to the pairs."""
    from prefline.training import logps

    logps.prepare(model)
    model.eval()
    for side in ("chosen", "rejected"):
        columns = [[pair[name] for pair in pairs] for name in ("prompt_ids", f"{side}_ids")]
        for indices, sums in logps.score(model, *columns, 1.0, 16384):
            for index, value in zip(indices, sums, strict=True):
                pairs[index][f"ref_{side}_logps"] = value
    (Path(args.model) / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    return {}


def arguments(directory, args):
    return dict(
        output_dir=directory,
        learning_rate=args.learning_rate,
        per_device_train_batch_size=args.rows,
        gradient_accumulation_steps=args.global_batch_size // args.rows,
        num_train_epochs=1,
        gradient_checkpointing=args.gradient_checkpointing,
        bf16=args.dtype == "bfloat16",
        use_cpu=benchmark.device() == "cpu",
        optim=args.optim,
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
    """What `measured` gives of a training, less a GPU's first step; found: the loss of every step."""
    from transformers import TrainerCallback

    after = []

    class AfterFirst(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                after.append(benchmark.clocks())

    trainer.add_callback(AfterFirst)
    made = benchmark.measured(trainer.train)
    if trial_steps():
        made["seconds"] = (benchmark.clocks() - after[0]).tolist()
    return made | {"found": [step["loss"] for step in trainer.state.log_history if "loss" in step]}


def trial_steps():
    """How many steps come before those that are measured: a GPU's first is slow."""
    return {"cpu": 0, "cuda": 1}[benchmark.device()]


def ours(model, pairs, directory, args):
    import pyarrow as pa
    import torch
    from transformers import TrainingArguments

    from prefline.training import logps
    from prefline.training import losses as formulas
    from prefline.training.preference_trainer import COLUMNS, Pairs, PreferenceTrainer

    made = TrainingArguments(**arguments(directory, args))
    with torch.autocast(model.device.type, torch.bfloat16, enabled=made.bf16):
        logps.prepare(model)
    rows, values = pa.Table.from_pylist(pairs), {"beta": BETA, "label_smoothing": 0.0}
    for name in set(COLUMNS) - set(rows.column_names):
        rows = rows.append_column(name, pa.nulls(len(pairs), pa.float32()))
    return losses(
        PreferenceTrainer(
            model=model,
            args=made,
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

    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate)

    def work():
        for pair in pairs[: args.published_pairs]:
            completions = [pair["chosen_ids"], pair["rejected_ids"]]
            reference = torch.tensor(
                [pair["ref_chosen_logps"], pair["ref_rejected_logps"]], device=model.device
            )
            with torch.autocast(benchmark.device(), torch.bfloat16, args.dtype == "bfloat16"):
                policy = benchmark.published(model, pair["prompt_ids"], completions)
            chosen, rejected = policy - reference
            loss = -torch.nn.functional.logsigmoid(BETA * (chosen - rejected))
            (loss / args.published_pairs).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    for _ in range(trial_steps()):
        work()
    return benchmark.measured(work)


def main():
    parser = benchmark.parser(__doc__)
    parser.add_argument("--steps", type=int, default=50, help="of the small model")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--published-pairs", type=int, default=2)
    parser.add_argument("--global-batch-size", type=int, default=8, help="pairs of a step")
    parser.add_argument("--rows", type=int, default=4, help="pairs of a forward pass")
    parser.add_argument("--peft", type=json.loads, help="adapters, as in the config; without: all weights")
    parser.add_argument("--optim", default="adamw_torch_fused")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    args = parser.parse_args()
    if args.measure:
        measure(args)
        return
    if args.pairs % args.global_batch_size or args.global_batch_size % args.rows:
        parser.error("--pairs must be a multiple of --global-batch-size, which must be one of --rows")
    with tempfile.TemporaryDirectory() as model:
        needed = benchmark.make(model, args) / args.pairs
        benchmark.in_a_process("measurements.training", "reference", model)
        made = {which: benchmark.in_a_process("measurements.training", which, model) for which in args.ways}
    pairs = args.pairs - args.global_batch_size * trial_steps()
    numbers = dict.fromkeys(made, pairs) | {"published": args.published_pairs}
    # Backwards it is once more to the activations, and once more to the weights if they are trained.
    benchmark.table(made, numbers, needed * (3 if args.peft is None else 2))
    if args.steps:
        compare(args)


def measure(args):
    """Print what a process of its own is there for."""
    if args.small:
        args = argparse.Namespace(**vars(args) | SMALL)
    model, pairs = load(args)
    ways = {"ours": ours, "published": published, "TRL": trl, "reference": add_reference}
    with tempfile.TemporaryDirectory() as directory:
        print(f"MEASURED {json.dumps(ways[args.measure](model, pairs, directory, args))}")


def compare(args):
    """Exit unless ours and TRL's take the same 50 steps."""
    print(f"\nthe same training, {args.steps} steps:")
    with tempfile.TemporaryDirectory() as model:
        small = argparse.Namespace(**vars(args) | SMALL)
        small.pairs = small.global_batch_size * args.steps
        benchmark.make(model, small, SHORT)
        benchmark.in_a_process("measurements.training", "reference", model, "--small")
        one, other = (
            np.array(benchmark.in_a_process("measurements.training", which, model, "--small")["found"])
            for which in ("ours", "TRL")
        )
    print(f"loss {one[0]:.4f} -> {one[-1]:.4f} ours, {other[0]:.4f} -> {other[-1]:.4f} TRL's")
    apart = np.abs(one - other).max()
    if len(one) != args.steps or not apart <= TOLERANCE:
        sys.exit(f"{len(one)} losses differ by {apart:.1e}, more than {TOLERANCE}")
    print(f"{args.steps} losses differ by {apart:.0e} at most")


if __name__ == "__main__":
    main()

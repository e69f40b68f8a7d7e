"""Train a policy on completions that are each desirable or not, by TRL's KTO.

The completions are those of the pairs, one by one, or given completions with labels. Chosen completions are
desirable and rejected ones are not, as in Ethayarajh et al. 2024 (arXiv 2402.01306). TRL gets the pairs'
ids, so there is no second tokenization. Their order is by a seeded hash, since TRL's KTO does not shuffle.
The reference is in memory: each step also needs its log-probabilities of prompts with another row's
completion.

    reads   prompt_id, split, prompt_ids, chosen_ids, rejected_ids
    writes  a model directory, its manifest, metrics.json, log.csv

    python -m scripts.train.train_kto --tokenized results/samples/sft/tokenized.parquet \
        --model results/models/sft \
        --reference results/models/sft --beta 0.1 --desirable-weight 1.0 --undesirable-weight 1.0 … (--help)
"""

import itertools

from prefline import errors, seeds
from prefline.config import section
from prefline.data import tables
from prefline.errors import InputError
from prefline.provenance import manifest
from prefline.text import chat
from prefline.training import (
    adapters,
    arguments,
    methods,
    models,
    probe,
    process,
    ref_logps,
    results,
    sharding,
    weights,
)
from prefline.training.settings import Settings

SIDES = {"chosen": True, "rejected": False}


def unpaired(pairs, split, seed):
    """Return (rows, names): a split's completions with prompt_ids, completion_ids and label, and their names.

    pairs: rows of tables.TOKENIZED. Each pair is two rows, anywhere in the order, and a completion with a
    label is one row. Raises InputError if there are none.
    """
    keyed = []
    for pair in pairs:
        if pair["split"] != split:
            continue
        for side, label in SIDES.items():
            if pair[f"{side}_ids"] is None:
                continue  # of a completion with a label
            name = f"prompt_id {pair['prompt_id']} ({side})"
            row = {"prompt_ids": pair["prompt_ids"], "completion_ids": pair[f"{side}_ids"], "label": label}
            keyed.append((seeds.derive(seed, "kto order", split, pair["prompt_id"], side), name, row))
    if not keyed:
        raise InputError(
            f"--tokenized has no {split} pairs among its {len(pairs)}; see the counts of dropped pairs in "
            "preferences.json and tokenized.json beside it, or raise prompts.num_prompts or num_test_prompts"
        )
    keyed.sort(key=lambda item: item[:2])
    return [row for *_, row in keyed], [name for _, name, _ in keyed]


def with_neighbors(rows):
    """Return `rows` with KL_completion_ids: the completion of the nearest row before with another prompt.

    The first rows take those of the last ones. TRL estimates the KL from the reference by prompts with
    completions of other prompts, but takes the previous row of a batch whatever its prompt. Raises InputError
    if all prompts are the same.
    """
    found, others = None, []
    for place in 2 * list(range(len(rows))):  # twice around the ring
        if rows[place]["prompt_ids"] != rows[place - 1]["prompt_ids"]:
            found = rows[place - 1]["completion_ids"]
        others.append(found)
    if found is None:
        raise InputError(
            "kto estimates the KL from the reference by completions of other prompts, but all rows of a "
            "split have the same prompt; raise prompts.num_prompts or num_test_prompts"
        )
    return [row | {"KL_completion_ids": other} for row, other in zip(rows, others[len(rows) :], strict=True)]


def filled(rows, batch):
    """Return `rows` and as many of the first ones again as the last `batch` lacks.

    Several devices would each fill it in their own way, and end elsewhere than one.
    """
    return rows + list(itertools.islice(itertools.cycle(rows), -len(rows) % batch))


def evaluate(kto):
    """Return TRL's metrics of the held-out completions (dict of float), without the balance of experts."""
    history = kto.state.log_history
    steps = len(history)
    balanced, kto.aux_loss_enabled = kto.aux_loss_enabled, False
    metrics = kto.evaluate()
    kto.aux_loss_enabled = balanced
    del history[steps:]  # the last entry must be the training step, not TRL's evaluation
    return {
        name.removeprefix("eval_"): value
        for name, value in metrics.items()
        if name == "eval_loss" or name.removeprefix("eval_").startswith(("rewards/", "logps/", "kl"))
    }


def parse(argv):
    parser = section.parser(__doc__)
    parser.add_argument("--tokenized", nargs="+", required=True, help="tokenized pairs, one file per policy")
    parser.add_argument("--reference", required=True, help="directory of the reference policy")
    section.add(parser, "train", *methods.HYPERPARAMETERS["kto"])
    Settings.add_flags(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    inputs = [args.reference, *args.tokenized]
    settings = Settings.of(vars(args))
    key = results.work_key(settings, "scripts/train/train_kto.py", [args.model, *inputs])
    starts = sorted({args.model, args.reference})
    parents = [*(str(manifest.path_of(start)) for start in starts), *args.tokenized]
    if results.restore(settings, key, "train_kto", parents):
        return
    sharding.refuse("kto", ["zero3"])
    share, pieces = arguments.shares(settings)
    if pieces > 1 or share < 2:
        raise InputError(
            f"kto estimates the distance from the reference by all {args.global_batch_size} rows of a step. "
            f"They must be in memory at once, at least two on a device, not in {pieces} pieces of {share}: "
            "raise the resource per_device_train_batch_size, or change global_batch_size"
        )
    pairs = tables.read(args.tokenized, tables.TOKENIZED)
    rows = pairs.to_pylist()
    train, names = unpaired(rows, "train", args.seed)
    test, _ = unpaired(rows, "test", args.seed)
    if process.is_main():
        print(f"{len(train)} train completions, {len(test)} test completions", flush=True)

    process.quiet()
    adapters.import_packages(args.peft)
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PrinterCallback
    from trl import KTOConfig, KTOTrainer

    from prefline.training import loop

    ref_logps.check_ids(pairs, models.vocabulary(args.model), "--tokenized")

    class KTO(KTOTrainer):
        """KTOTrainer on ids that are there already."""

        def _prepare_dataset(self, dataset, *_):
            return dataset

    model = weights.load(settings, AutoModelForCausalLM)
    probe.ready_for_trainers(model, "right")
    models.disable_dropout(model)
    kto = KTO(
        model=model,
        ref_model=weights.load_reference(args.reference, args.dtype, args.attn_implementation),
        args=arguments.make(
            settings,
            KTOConfig,
            beta=args.beta,
            desirable_weight=args.desirable_weight,
            undesirable_weight=args.undesirable_weight,
            max_length=None,
            disable_dropout=False,  # that of adapters stays
        ),
        train_dataset=Dataset.from_list(filled(with_neighbors(train), args.global_batch_size)),
        eval_dataset=Dataset.from_list(with_neighbors(test)),
        processing_class=chat.load_tokenizer(args.model),
    )
    adapters.unrounded(kto.model)
    kto.remove_callback(PrinterCallback)
    before = evaluate(kto)
    metrics = loop.fit(kto, settings, key, filled(names, args.global_batch_size), lambda: evaluate(kto))
    after = evaluate(kto)
    metrics |= {f"eval_{name}": value for name, value in after.items()}
    metrics |= {f"eval_{name}_before": value for name, value in before.items()}
    held_out = [(row["prompt_ids"], row["completion_ids"]) for row in test]
    results.save(model, settings, "train_kto", parents, held_out)
    if process.is_main():
        for name in ("loss", "rewards/margins", "kl"):
            print(f"held-out {name} {before[name]:.4g} -> {after[name]:.4g}")
    results.finish(settings, key, metrics)


if __name__ == "__main__":
    errors.run(main)

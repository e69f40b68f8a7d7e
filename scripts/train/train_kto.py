"""Train a policy on completions that are each desirable or not, by TRL's KTO.

The completions are those of the pairs, one by one: what was chosen is desirable, what was rejected is not, as
Ethayarajh et al. 2024 (arXiv 2402.01306) take paired data. Nothing is tokenized again: TRL gets the pairs'
ids, in an order by a seeded hash, since its KTO goes through the rows as they stand. The reference is a model
in memory: each step also needs its log-probabilities of prompts with a neighbor's completion.

    reads   prompt_id, split, prompt_ids, chosen_ids, rejected_ids
    writes  a model directory, its manifest, metrics.json, log.csv

    python -m scripts.train.train_kto --tokenized results/samples/sft/tokenized.parquet \
        --model results/models/sft \
        --reference results/models/sft --beta 0.1 --desirable-weight 1.0 --undesirable-weight 1.0 … (--help)
"""

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
    process,
    ref_logps,
    results,
    sharding,
    weights,
)
from prefline.training.settings import Settings

SIDES = {"chosen": True, "rejected": False}


def unpaired(pairs, split, seed):
    """(rows, names): a split's completions with prompt_ids, completion_ids and label, and what to call them.

    pairs: rows of tables.TOKENIZED. Each pair is two rows, anywhere in the order. Raises InputError if there
    are none.
    """
    keyed = []
    for pair in pairs:
        if pair["split"] != split:
            continue
        for side, label in SIDES.items():
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


def with_neighbors(rows, batch):
    """`rows` with KL_completion_ids: within each `batch` of them the completion of the row before, in a ring.

    As TRL estimates the distance from the reference: by prompts with completions that are not theirs.
    """
    made = []
    for start in range(0, len(rows), batch):
        group = rows[start : start + batch]
        made += [
            row | {"KL_completion_ids": group[place - 1]["completion_ids"]} for place, row in enumerate(group)
        ]
    return made


def evaluate(kto):
    """TRL's metrics of the held-out completions (dict of float)."""
    history = kto.state.log_history
    steps = len(history)
    metrics = kto.evaluate()
    del history[steps:]  # whose last entry is the step that is looked at, and not what TRL adds
    return {
        name.removeprefix("eval_"): value
        for name, value in metrics.items()
        if name == "eval_loss" or name.removeprefix("eval_").startswith(("rewards/", "logps/", "kl"))
    }


def parse(argv):
    parser = section.parser(__doc__)
    parser.add_argument("--tokenized", nargs="+", required=True, help="tokenized pairs, one file per policy")
    parser.add_argument("--reference", required=True, help="directory of the policy that it is held to")
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
            f"kto estimates the distance from the reference by all {args.global_batch_size} rows of a step, "
            f"which must be in memory at once, two at least on a device, not in {pieces} pieces of {share}: "
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
    models.disable_dropout(model)
    kto = KTO(
        model=model,
        ref_model=weights.load_reference(args.reference, args.dtype),
        args=arguments.make(
            settings,
            KTOConfig,
            beta=args.beta,
            desirable_weight=args.desirable_weight,
            undesirable_weight=args.undesirable_weight,
            max_length=None,
            disable_dropout=False,  # that of adapters stays
        ),
        train_dataset=Dataset.from_list(with_neighbors(train, args.global_batch_size)),
        eval_dataset=Dataset.from_list(with_neighbors(test, args.global_batch_size)),
        processing_class=chat.load_tokenizer(args.model),
    )
    adapters.unrounded(kto.model)
    kto.remove_callback(PrinterCallback)
    before = evaluate(kto)
    metrics = loop.fit(kto, settings, key, names, lambda: evaluate(kto))
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

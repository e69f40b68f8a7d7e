"""Train a policy from preference pairs with precomputed reference log-probabilities: DPO or REBEL.

Train pairs train; test pairs are evaluated before and after. The reference is never loaded: its
log-probabilities come row by row from compute_ref_logps, and both files must agree on every row's prompt and
token counts. Every optimizer step takes --global-batch-size pairs, on whatever number of devices. log.csv and
metrics.json use TRL's names; rewards/* are the rewards that the policy implies, beta times the log-ratio for
DPO, and the log-ratio over eta, in the reward model's units, for REBEL.

    reads   prompt_id, split, prompt_ids, chosen_ids, rejected_ids, chosen_reward, rejected_reward
            prompt_id, ref_chosen_logps, ref_rejected_logps, chosen_tokens, rejected_tokens
    writes  a model directory, its manifest, metrics.json, log.csv

    python -m scripts.train_policy --tokenized results/samples/sft/tokenized.parquet \
        --ref-logps results/samples/sft/ref_logps/sft/0000.parquet --model results/models/sft \
        --temperature 1.0 --loss-type sigmoid --beta 0.1 … (--help lists every flag)
"""

import argparse

import pyarrow.compute as pc

from scripts.common import errors, files, losses, manifest, tables, trainer
from scripts.common.errors import InputError


def join(tokenized, ref_logps):
    """One Table with the columns of both, which must speak of the same pairs, row by row; else InputError."""
    if len(tokenized) != len(ref_logps):
        raise InputError(
            f"--tokenized has {len(tokenized)} rows, --ref-logps {len(ref_logps)}: they do not belong "
            "together; name all parts of the same policies in the same order, or make ref_logps again"
        )
    agree = pc.equal(tokenized["prompt_id"], ref_logps["prompt_id"])
    for side in ("chosen", "rejected"):
        lengths = pc.list_value_length(tokenized[f"{side}_ids"])
        agree = pc.and_(agree, pc.equal(lengths, ref_logps[f"{side}_tokens"]))
    if not pc.all(agree, min_count=0).as_py():
        row = pc.index(agree, False).as_py()
        ours, theirs = tokenized["prompt_id"][row], ref_logps["prompt_id"][row]
        raise InputError(
            f"row {row} is prompt_id {ours} in --tokenized and {theirs} in --ref-logps, or its token counts "
            "differ: they do not belong together; name the files of the same policies in the same order, or "
            "make ref_logps again"
        )
    for name in ("ref_chosen_logps", "ref_rejected_logps"):
        tokenized = tokenized.append_column(name, ref_logps[name])
    return tokenized


def check_rewards(pairs):
    """Raise InputError for the first pair without two finite rewards: REBEL regresses on them."""
    for name in ("chosen_reward", "rejected_reward"):
        finite = pc.fill_null(pc.is_finite(pairs[name]), False)
        if not pc.all(finite, min_count=0).as_py():
            row = pc.index(finite, False).as_py()
            raise InputError(
                f"--tokenized, row {row}, prompt_id {pairs['prompt_id'][row]}: {name} is {pairs[name][row]}, "
                "but loss_type rebel needs rewards; take loss_type sigmoid, or name the data's reward columns"
            )


def split_of(pairs, split):
    """The pairs of a split; InputError if there are none."""
    chosen = pairs.filter(pc.equal(pairs["split"], split))
    if not len(chosen):
        raise InputError(
            f"--tokenized has no {split} pairs among its {len(pairs)}; see the counts of dropped pairs in "
            "preferences.json and tokenized.json beside it, or raise prompts.num_prompts or num_test_prompts"
        )
    return chosen


def objective(args):
    """(pair_loss, reward_scale) of the flags: see PreferenceTrainer."""

    def sigmoid(chosen_logratios, rejected_logratios, *_):
        return losses.sigmoid(chosen_logratios, rejected_logratios, args.beta, args.label_smoothing)

    def rebel(*ratios_and_rewards):
        return losses.rebel(*ratios_and_rewards, args.eta)

    return (sigmoid, args.beta) if args.loss_type == "sigmoid" else (rebel, 1 / args.eta)


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenized", nargs="+", required=True, help="tokenized pairs, one file per policy")
    parser.add_argument(
        "--ref-logps", nargs="+", required=True, help="all parts of the first file, of the second, …"
    )
    parser.add_argument("--model", required=True, help="directory of the policy that training starts from")
    parser.add_argument(
        "--temperature", type=float, required=True, help="divides the logits, as in ref_logps"
    )
    parser.add_argument(
        "--loss-type", choices=list(losses.HYPERPARAMETERS), required=True, help="DPO or REBEL"
    )
    parser.add_argument("--beta", type=float, help="sigmoid: DPO's weight of the KL penalty")
    parser.add_argument("--label-smoothing", type=float, help="sigmoid: DPO's share of turned pairs")
    parser.add_argument("--eta", type=float, help="rebel: REBEL's scale of the reward differences")
    trainer.add_arguments(parser)
    args = parser.parse_args(argv)
    missing = [key for key in losses.HYPERPARAMETERS[args.loss_type] if getattr(args, key) is None]
    if missing:
        parser.error(f"the loss {args.loss_type} needs --{missing[0].replace('_', '-')}")
    return args


def main(argv=None):
    args = parse(argv)
    inputs = [*args.tokenized, *args.ref_logps]
    key = trainer.work_key(args, "scripts/train_policy.py", [args.model, *inputs])
    parents = [manifest.path_of(args.model), *inputs]
    if trainer.restore(args, key, "train_policy", parents):
        return
    pairs = join(tables.read(args.tokenized, tables.TOKENIZED), tables.read(args.ref_logps, tables.REF_LOGPS))
    if args.loss_type == "rebel":
        check_rewards(pairs)
    train, test = split_of(pairs, "train"), split_of(pairs, "test")
    if trainer.is_main():
        print(f"{len(train)} train pairs, {len(test)} test pairs", flush=True)

    trainer.quiet()
    from transformers import AutoModelForCausalLM

    from scripts.common import logps
    from scripts.common.preference_trainer import Pairs, PreferenceTrainer, disable_dropout, means

    model = trainer.load_model(args, AutoModelForCausalLM)
    disable_dropout(model)
    logps.prepare(model)
    pair_loss, reward_scale = objective(args)
    preference_trainer = PreferenceTrainer(
        model=model,
        args=trainer.arguments(args, remove_unused_columns=False),
        train_dataset=Pairs(train),
        eval_dataset=Pairs(test),
        pair_loss=pair_loss,
        reward_scale=reward_scale,
        temperature=args.temperature,
    )

    def evaluate():
        return means(
            trainer.held_out(preference_trainer, lambda *batch: preference_trainer.measure(*batch)[1])
        )

    before = evaluate()
    rows = [f"prompt_id {prompt_id}" for prompt_id in train["prompt_id"].to_pylist()]
    metrics = trainer.fit(preference_trainer, args, key, rows)
    after = evaluate()
    metrics |= {f"eval_{name}": value for name, value in after.items()}
    metrics |= {f"eval_{name}_before": value for name, value in before.items()}
    trainer.save(model, args, "train_policy", parents)
    if trainer.is_main():
        files.write_json(args.metrics, metrics)
        for name in ("loss", "rewards/margins", "rewards/accuracies"):
            print(f"held-out {name} {before[name]:.4g} -> {after[name]:.4g}")
    trainer.keep(args, key)


if __name__ == "__main__":
    errors.run(main)

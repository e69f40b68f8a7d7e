"""Train a policy from preference pairs and precomputed reference log-probabilities, by any loss.

Train pairs train; test pairs are evaluated before and after. The reference is never loaded: its
log-probabilities come row by row from compute_ref_logps, and must be those of exactly these ids, under
--reference, at --temperature, which hashes verify. Every optimizer step takes --global-batch-size pairs, on
whatever number of devices. log.csv and metrics.json use TRL's names; rewards/* are the rewards that the
policy implies (losses.implied_rewards).

    reads   prompt_id, split, prompt_ids, chosen_ids, rejected_ids, rewards, win probabilities
            prompt_id, ref_chosen_logps, ref_rejected_logps, chosen_tokens, rejected_tokens, metadata
    writes  a model directory, its manifest, metrics.json, log.csv

    python -m scripts.train.train_policy --tokenized results/samples/sft/tokenized.parquet \
        --ref-logps results/samples/sft/ref_logps/sft/0000.parquet --reference results/models/sft.json \
        --model results/models/sft --scale-by \
        --temperature 1.0 --loss-type sigmoid --beta 0.1 … (--help lists every flag)
"""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prefline import errors, files
from prefline.config import section
from prefline.data import tables
from prefline.errors import InputError
from prefline.provenance import manifest
from prefline.training import (
    adapters,
    arguments,
    evaluation,
    losses,
    models,
    process,
    ref_logps,
    results,
    weights,
)
from prefline.training.settings import Settings

HYPERPARAMETERS = sorted(losses.hyperparameters(list(losses.LOSSES)) | {"loss_arguments"})
# Nats of log-ratio between chosen and rejected for each token of rejected: hardly a difference; what REBEL
# does well with; more than a policy that still speaks the language can give.
LEAST_NATS, SENSIBLE_NATS, MOST_NATS = 0.01, 0.5, 5.0


def check_pairs(pairs, loss_type, values=None):
    """Raise InputError for the first pair of equal ids, or without a number that the losses need.

    values: dict, the hyperparameters of loss_type, which losses of the user's are tried with.
    """
    for name in losses.columns(loss_type, values):
        finite = pc.fill_null(pc.is_finite(pairs[name]), False)
        if not pc.all(finite, min_count=0).as_py():
            row = pc.index(finite, False).as_py()
            instead = "take loss_type sppo_hard, which needs none"
            if name in losses.COLUMNS["rebel"]:
                instead = "take loss_type sigmoid, or name the data's columns in prompts.preferences.columns"
            raise InputError(
                f"--tokenized, row {row}, prompt_id {pairs['prompt_id'][row]}: {name} is {pairs[name][row]}, "
                f"but loss_type {loss_type} needs it; {instead}"
            )
    lengths = [pc.list_value_length(pairs[name]) for name in ("chosen_ids", "rejected_ids")]
    for row in pc.indices_nonzero(pc.equal(*lengths)).to_pylist():
        if pairs["chosen_ids"][row].values.equals(pairs["rejected_ids"][row].values):
            raise InputError(
                f"--tokenized, row {row}, prompt_id {pairs['prompt_id'][row]}: chosen and rejected are the "
                "same tokens; remove the row, or have tokenize_preferences make the file: it drops such pairs"
            )


def scale_rewards(pairs, reward_scaling, first):
    """Return the pairs with rewards scaled for REBEL; InputError if all rewards of train pairs are equal.

    z_score: subtract the mean of all chosen and rejected rewards of the train pairs and divide by their
    standard deviation; by_run: use both of `first`, the pairs (Table) of the run's first iteration, so that a
    reward has the same scale in every iteration; none: leave rewards unchanged.
    """
    columns = losses.COLUMNS["rebel"]
    train = split_of(pairs, "train")
    chosen, rejected = (pairs[name].to_numpy().astype(float)[train] for name in columns)
    if np.array_equal(chosen, rejected):
        raise InputError(
            f"--tokenized: in each of the {len(train)} train pairs, beginning with prompt_id "
            f"{pairs['prompt_id'][train[0]]}, chosen_reward equals rejected_reward, and REBEL learns from "
            "their difference; see rewards and rank.min_margin, or take loss_type sigmoid"
        )
    if reward_scaling == "none":
        return pairs
    of, rows = (first, split_of(first, "train")) if reward_scaling == "by_run" else (pairs, train)
    rewards = np.concatenate([of[name].to_numpy().astype(float)[rows] for name in columns])
    if not rewards.std() > 0:
        raise InputError(
            f"--scale-by: the {len(rewards)} rewards of its train pairs have the standard deviation "
            f"{rewards.std()}, by which reward_scaling {reward_scaling} cannot divide; take z_score or none"
        )
    for name in columns:
        scaled = (pairs[name].to_numpy() - rewards.mean()) / rewards.std()
        column = pa.array(scaled.astype(np.float32))
        pairs = pairs.set_column(pairs.schema.get_field_index(name), name, column)
    return pairs


def reach_warning(pairs, rows, eta):
    """Return a warning (str) if eta asks too much or almost nothing of a typical pair of `rows`; else None.

    REBEL wants the log-ratio of chosen to exceed that of rejected by eta times the difference of rewards.
    Chosen can gain little, what the reference lacks of certainty; so rejected must lose it, token by token.
    """
    chosen, rejected = (pairs[name].to_numpy().astype(float)[rows] for name in losses.COLUMNS["rebel"])
    apart = np.abs(chosen - rejected)
    # Equal rewards ask for nothing. Many are where they say right or wrong, but never all: see scale_rewards.
    spread = float(np.median(apart[apart > 0]))
    tokens = float(np.median(pc.list_value_length(pairs["rejected_ids"]).to_numpy()[rows]))
    asked, least, most = eta * spread, LEAST_NATS * tokens, MOST_NATS * tokens
    if least <= asked <= most:
        return None
    consequence = "next to nothing: the policy will hardly leave the reference"
    if asked > most:
        consequence = "out of reach: rewards will only weigh the pairs, and the loss will hardly fall"
    return (
        f"warning: eta {eta:g} times the rewards' median difference {spread:.3g}, where they differ, asks "
        f"for log-ratios that are {asked:.3g} nats apart where rejected has {tokens:.0f} tokens, "
        f"{consequence}; eta {SENSIBLE_NATS * tokens / spread:.2g} would ask for {SENSIBLE_NATS} nats a token"
    )


def split_of(pairs, split):
    """Return the numbers (int64 array) of a split's rows; InputError if there are none."""
    rows = pc.indices_nonzero(pc.equal(pairs["split"], split)).to_numpy().astype(np.int64)
    if not len(rows):
        raise InputError(
            f"--tokenized has no {split} pairs among its {len(pairs)}; see the counts of dropped pairs in "
            "preferences.json and tokenized.json beside it, or raise prompts.num_prompts or num_test_prompts"
        )
    return rows


def sequences(pairs, rows):
    """Return completions of a Table's `rows`, for results.save: list of (prompt ids, completion ids)."""
    some = pairs.take(rows[: adapters.HELD_OUT]).to_pylist()
    return [(row["prompt_ids"], row[f"{side}_ids"]) for row in some for side in ("chosen", "rejected")]


def check_batch(settings, values):
    """Raise InputError if the devices cannot share the global batch, or a loss needs it whole."""
    _, batches = arguments.shares(settings)
    sorting = losses.sorting(values["loss_type"], values)
    pieces = batches * process.world_size()
    if sorting and pieces > 1:
        raise InputError(
            f"the loss {sorting[0]} is one of the whole batch of {settings.global_batch_size} pairs, which "
            f"must be on one device at once, not in {pieces} pieces; raise the resource "
            "per_device_train_batch_size, lower global_batch_size, or train on one device"
        )


def evaluate(preference_trainer, prompt_ids):
    """Return means over the held-out pairs (dict of float); InputError names the first non-finite loss.

    prompt_ids: list of str, those of preference_trainer.eval_dataset.
    """
    from prefline.training.preference_trainer import means

    finite = []

    def measure(model, batch):
        pair_losses, counted = preference_trainer.measure(model, batch)
        finite.extend(pair_losses.isfinite().tolist())
        return counted.sum(dim=1)

    metrics = means(evaluation.held_out(preference_trainer, measure))
    if not math.isfinite(metrics["loss"]):
        own = prompt_ids[process.rank() :: process.world_size()]
        bad = [prompt_id for prompt_id, good in zip(own, finite, strict=False) if not good]
        raise InputError(
            f"the loss of the held-out pairs is {metrics['loss']} after "
            f"{preference_trainer.state.global_step} steps, first of prompt_id "
            f"{bad[0] if bad else '(on another device)'}; check it, beta, eta and learning_rate"
        )
    return metrics


def parse(argv):
    parser = section.parser(__doc__)
    parser.add_argument("--tokenized", nargs="+", required=True, help="tokenized pairs, one file per policy")
    parser.add_argument(
        "--ref-logps", nargs="+", required=True, help="all parts of the first file, of the second, …"
    )
    parser.add_argument(
        "--reference", required=True, help="manifest (json) of the model whose log-probabilities they are"
    )
    parser.add_argument(
        "--scale-by",
        nargs="*",
        required=True,
        help="for --reward-scaling by_run: tokenized pairs of the run's first iteration; else none",
    )
    section.add(parser, "logps", "temperature")
    section.add(parser, "train", "loss_type")
    section.add(parser, "train", *HYPERPARAMETERS, optional=HYPERPARAMETERS)
    Settings.add_flags(parser)
    args = parser.parse_args(argv)
    losses.check_names(args.loss_type)
    missing = sorted(losses.hyperparameters(args.loss_type) - vars(args).keys())
    if missing:
        parser.error(f"the loss {args.loss_type} needs --{missing[0].replace('_', '-')}")
    losses.check(args.loss_type, vars(args))
    if vars(args).get("reward_scaling") == "by_run" and not args.scale_by:
        parser.error("--reward-scaling by_run needs the pairs of the run's first iteration in --scale-by")
    return args


def main(argv=None):
    args = parse(argv)
    inputs = list(dict.fromkeys([*args.tokenized, *args.ref_logps, *args.scale_by]))
    settings = Settings.of(vars(args))
    own_files = losses.own_files(args.loss_type)
    key = results.work_key(settings, "scripts/train/train_policy.py", [args.model, *inputs], own_files)
    parents = [manifest.path_of(args.model), args.reference, *inputs]
    if results.restore(settings, key, "train_policy", parents):
        return
    check_batch(settings, vars(args))
    reference = files.read_json(args.reference)["files"]
    process.quiet()
    adapters.import_packages(args.peft)
    import torch
    from transformers import AutoModelForCausalLM

    from prefline.training import logps, loop
    from prefline.training.preference_trainer import Pairs, PreferenceTrainer

    training_arguments = arguments.make(settings, remove_unused_columns=False)
    vocabulary, folder = models.vocabulary(args.model), results.folder(settings, key)
    with training_arguments.main_process_first(local=False):
        pairs = ref_logps.joined(
            args.tokenized, args.ref_logps, reference, args.temperature, vocabulary, folder
        )
    check_pairs(pairs, args.loss_type, vars(args))
    rebel = "reward_scaling" in losses.hyperparameters(args.loss_type)
    if rebel:
        scaling = ("prompt_id", "split", *losses.COLUMNS["rebel"])
        first = tables.read(args.scale_by, tables.TOKENIZED, scaling)
        pairs = scale_rewards(pairs, args.reward_scaling, first)
    train, test = split_of(pairs, "train"), split_of(pairs, "test")
    if process.is_main():
        print(f"{len(train)} train pairs, {len(test)} test pairs", flush=True)
        warning = reach_warning(pairs, train, args.eta) if rebel else None
        if warning:
            print(warning, flush=True)

    model = weights.load(settings, AutoModelForCausalLM)
    models.disable_dropout(model)
    device = training_arguments.device
    with torch.autocast(device.type, torch.bfloat16, enabled=training_arguments.bf16):
        logps.prepare(model.to(device), args.attn_implementation)
    preference_trainer = PreferenceTrainer(
        model=model,
        args=training_arguments,
        train_dataset=Pairs(pairs, train),
        eval_dataset=Pairs(pairs, test),
        pair_loss=lambda batch: losses.total(batch, args.loss_type, vars(args)),
        implied_rewards=lambda batch: losses.implied_rewards(batch, args.loss_type, vars(args)),
        temperature=args.temperature,
        router_aux_loss_coef=args.router_aux_loss_coef,
    )
    held_out = pairs["prompt_id"].take(test).to_pylist()
    before = evaluate(preference_trainer, held_out)
    rows = [f"prompt_id {prompt_id}" for prompt_id in pairs["prompt_id"].take(train).to_pylist()]
    metrics = loop.fit(
        preference_trainer, settings, key, rows, lambda: evaluate(preference_trainer, held_out)
    )
    after = evaluate(preference_trainer, held_out)
    metrics |= {f"eval_{name}": value for name, value in after.items()}
    metrics |= {f"eval_{name}_before": value for name, value in before.items()}
    results.save(model, settings, "train_policy", parents, sequences(pairs, test))
    if process.is_main():
        for name in ("loss", "rewards/margins", "rewards/accuracies"):
            print(f"held-out {name} {before[name]:.4g} -> {after[name]:.4g}")
    results.finish(settings, key, metrics)


if __name__ == "__main__":
    errors.run(main)

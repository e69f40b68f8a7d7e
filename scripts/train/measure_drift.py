"""Measure a policy's KL from the start policy and its rewards: over-optimization, in numbers.

On the held-out prompts, from the policy's own samples:

    kl                 the mean of log π(y|x) − log π_ref(y|x), in nats for a completion and for a token: an
                       estimate of the Kullback-Leibler divergence from each of --references
    completion_tokens  mean length, beside the start policy's on the same prompts
    truncated          share of completions cut off at the token limit, beside the start policy's
    rewards            mean of each reward that is cheap to compute, beside the start policy's
    held_out           the training's held-out loss, margin and accuracy

Both log-probabilities are at the temperature that the samples were drawn at (at 1 if that is 0); top_p and
top_k, which cut the distribution, are ignored. Standard errors are over prompts, since samples of one prompt
are not independent.

    python -m scripts.train.measure_drift --model results/models/dpo-1 --references results/models/sft \\
        --prompts results/samples/dpo-1/prompts/test-00000.parquet \\
        --completions results/samples/dpo-1/completions/test-00000.parquet \\
        --start-completions results/samples/sft/completions/test-00000.parquet --rewards --start-rewards \\
        --metrics results/training/dpo-1/metrics.json --temperature 0.8 --dtype float32 \\
        --attn-implementation sdpa --batch-tokens 16384 --out results/training/dpo-1/drift.json
"""

import math
from pathlib import Path

import numpy as np

from prefline import errors, files
from prefline.config import section
from prefline.data import tables
from prefline.errors import InputError

HELD_OUT = ("loss", "rewards/margins", "rewards/accuracies")


def divergence(prompt_ids, logratios, tokens):
    """Return the estimate of a divergence (dict of float) from samples, with errors clustered by prompt.

    prompt_ids: list of str, one for each sample; logratios, tokens: float arrays (samples,): the sum of
    log π − log π_ref over a completion's tokens, and their number.
    """
    prompts = {name: number for number, name in enumerate(dict.fromkeys(prompt_ids))}
    groups = np.array([prompts[name] for name in prompt_ids])
    counts, nats, lengths = (
        np.bincount(groups, weights, len(prompts)) for weights in (np.ones(len(groups)), logratios, tokens)
    )
    found = {}
    for name, wholes in (("per_sequence", counts), ("per_token", lengths)):
        mean = nats.sum() / wholes.sum()
        apart = nats - mean * wholes  # of a ratio of sums over prompts
        spread = len(prompts) / max(len(prompts) - 1, 1) * (apart**2).sum()
        found[f"nats_{name}"] = mean
        found[f"standard_error_{name}"] = math.sqrt(spread) / wholes.sum()
    return {name: float(value) for name, value in found.items()}


def lengths(completions):
    """Return (mean tokens, share cut off) of completions, a Table of tables.COMPLETIONS."""
    tokens = [len(ids) for ids in completions["completion_ids"].to_pylist()]
    cut = [reason == "length" for reason in completions["finish_reason"].to_pylist()]
    return float(np.mean(tokens)), float(np.mean(cut))


def mean_rewards(paths):
    """Return {reward: mean (float)} of reward shards, by the name of their folder, without unscored ones."""
    scored = {}
    for path in paths:
        values = tables.read(path, tables.REWARDS)["reward"].drop_null().to_numpy()
        scored.setdefault(Path(path).parent.name, []).append(values.astype(np.float64))
    return {name: float(np.concatenate(shards).mean()) for name, shards in scored.items()}


def score(directory, prompts, completions, args):
    """Return Log-probabilities (float array) of completions after prompts (lists of ids) under a model."""
    from prefline.training import logps

    model, sums = logps.load(directory, args.dtype, args.attn_implementation), np.empty(len(prompts))
    for numbers, values in logps.score(
        model, prompts, completions, args.temperature or 1.0, args.batch_tokens
    ):
        sums[numbers] = values
    if not np.isfinite(sums).all():
        raise InputError(
            f"{directory}: log-probabilities of its completions are not finite; check its log.csv"
        )
    return sums


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--model", required=True, help="directory of the policy")
    parser.add_argument("--references", nargs="+", required=True, help="directories to measure the KL from")
    parser.add_argument("--prompts", nargs="+", required=True, help="held-out prompts (parquet)")
    parser.add_argument("--completions", nargs="+", required=True, help="the policy's, shard by shard")
    parser.add_argument("--start-completions", nargs="+", required=True, help="the start policy's")
    parser.add_argument("--rewards", nargs="*", required=True, help="of the policy's completions, or none")
    parser.add_argument("--start-rewards", nargs="*", required=True, help="of the start policy's, or none")
    parser.add_argument("--metrics", required=True, help="of the policy's training (json)")
    section.add(parser, "generate", "temperature")
    section.add(parser, "logps", "dtype")
    section.add(parser, "training_defaults", "attn_implementation")
    parser.add_argument("--batch-tokens", type=int, required=True, help="tokens of a forward pass")
    parser.add_argument("--out", required=True, help="the measures (json)")
    args = parser.parse_args(argv)

    prompts = tables.read(args.prompts, tables.PROMPTS).select(["prompt_id", "prompt_ids"]).to_pylist()
    ids_of = {row["prompt_id"]: row["prompt_ids"] for row in prompts}
    said = tables.read(args.completions, tables.COMPLETIONS)
    rows = [row for row in said.to_pylist() if row["completion_ids"]]
    if not rows:
        raise InputError(f"{args.completions[0]}: no completion has a token; the policy has nothing to say")
    names = [row["prompt_id"] for row in rows]
    pairs = [ids_of[name] for name in names], [row["completion_ids"] for row in rows]
    tokens = np.array([len(ids) for ids in pairs[1]], dtype=float)
    own = score(args.model, *pairs, args)
    kl = {
        Path(reference).name: divergence(names, own - score(reference, *pairs, args), tokens)
        for reference in args.references
    }
    (length, cut), (start_length, start_cut) = (
        lengths(one) for one in (said, tables.read(args.start_completions, tables.COMPLETIONS))
    )
    scored, start_scored = mean_rewards(args.rewards), mean_rewards(args.start_rewards)
    metrics = files.read_json(args.metrics)
    measures = {
        "prompts": len(ids_of),
        "completions": len(rows),
        "temperature": args.temperature or 1.0,
        "kl": kl,
        "completion_tokens": {"policy": length, "start": start_length},
        "truncated": {"policy": cut, "start": start_cut},
        "rewards": {name: {"policy": scored[name], "start": start_scored[name]} for name in sorted(scored)},
        "held_out": {name: metrics.get(f"eval_{name}") for name in HELD_OUT},
    }
    files.write_json(args.out, measures)
    for name, found in kl.items():
        print(
            f"KL from {name}: {found['nats_per_sequence']:.4g} nats per completion (standard error "
            f"{found['standard_error_per_sequence']:.2g}), {found['nats_per_token']:.4g} per token; "
            f"{length:.1f} tokens, the start policy's {start_length:.1f}"
        )


if __name__ == "__main__":
    errors.run(main)

"""Reference log-probabilities: the project's beside the published recipe's and TRL's, on the same pairs.

A table of pairs/s, ratios by the clock and in CPU time (which other work on the machine disturbs less), and
memory, from one process after another; loading and tokenizing are not counted. Sums agree to a millionth in
float32, to a hundredth in bfloat16, or the run fails. The others are

- `published`: prompts padded to 1024 and completions to 2048 tokens, one dialogue at a time, the log-softmax
  of the logits of all positions, as in the REBEL recipe;
- `TRL`: DPOTrainer's precompute_ref_log_probs on batches of 8 pairs (its default) in the data's order.

Then what a token costs, by the tokens of one batch, in pairs of 512 tokens; and what is gained by computing a
prompt once for both completions.

With --texts, pairs are the first and the last response to prompts of a jsonl file whose lines have a
`prompt` and its `responses` (a list, or a dict by model), so that lengths are real. Without it they are the
embedded data's words at lengths like those of public prompts and answers. The model is a Llama of random
weights; its tokenizer is learnt from the texts. On a GPU, that of Llama-3-8B:

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python -m measurements.logps --texts answers.jsonl
    python -m measurements.logps --texts answers.jsonl --pairs 128 --dtype bfloat16 --layers 32 \
        --hidden-size 4096 --intermediate-size 14336 --heads 32 --kv-heads 8 --vocabulary 128256
"""

import itertools
import json
import sys
import tempfile

import numpy as np

from measurements import pairs as benchmark

WAYS = ("ours", "published", "TRL")
TOLERANCE = {"float32": 1e-6, "bfloat16": 1e-2}  # of a sum
TRIAL = {"cpu": 0, "cuda": 16}  # pairs that come before: a GPU's first steps are slow
BATCHES = (1024, 4096, 16384, 32768)
SHARES = ((40, 512), (256, 448), (1024, 80))  # tokens of a prompt and of each completion


def ours(model, pairs, args):
    from prefline.training import logps

    logps.prepare(model)

    def work(pairs):
        prompts = [pair["prompt_ids"] for pair in pairs for _ in range(2)]
        completions = [pair[name] for pair in pairs for name in ("chosen_ids", "rejected_ids")]
        sums = {}
        for indices, values in logps.score(model, prompts, completions, 1.0, args.batch_tokens):
            sums |= zip(indices, values, strict=True)
        return [sums[index] for index in range(len(prompts))]

    return tried_and_measured(work, pairs)


def published(model, pairs, args):
    import torch

    def work(pairs):
        with torch.no_grad():
            return [
                benchmark.published(model, pair["prompt_ids"], [pair[name]]).item()
                for pair in pairs
                for name in ("chosen_ids", "rejected_ids")
            ]

    return tried_and_measured(work, pairs)


def trl(model, pairs, args):
    """Only the pass over the data is measured: tokenizing comes first, of one row that is not looked at.

    TRL first hashes all weights, to find what it computed before: a minute for 8B parameters, not counted.
    """
    from unittest import mock

    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    found = {}

    class Measured(DPOTrainer):
        def _precompute_ref_logps(self, dataset, name, batch_size):
            def work(pairs):
                made = super(Measured, self)._precompute_ref_logps(Dataset.from_list(pairs), name, batch_size)
                columns = made["ref_chosen_logps"], made["ref_rejected_logps"]
                return [float(value) for both in zip(*columns, strict=True) for value in both]

            found.update(tried_and_measured(work, pairs))
            return dataset

    hashing = mock.patch("trl.trainer.dpo_trainer.hash_module", lambda model: "")
    with tempfile.TemporaryDirectory() as directory, hashing:
        Measured(
            model,
            args=DPOConfig(
                directory,
                precompute_ref_log_probs=True,
                max_length=None,
                bf16=args.dtype == "bfloat16",
                use_cpu=benchmark.device() == "cpu",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
            processing_class=AutoTokenizer.from_pretrained(args.model, trust_remote_code=False),
        )
    return found


def tried_and_measured(work, pairs):
    """What `measured` gives of work(pairs), on a GPU after a few of them."""
    if trial := TRIAL[benchmark.device()]:
        work(pairs[:trial])
    return benchmark.measured(lambda: work(pairs))


def forward(model, groups):
    """What `measured` gives of one forward pass, without gradients."""
    import torch

    from prefline.training import logps

    batch = {name: tensor.to(model.device) for name, tensor in logps.collate(groups).items()}

    def work():
        with torch.inference_mode():
            logps.completion_logps(model, **batch, temperature=1.0)

    return benchmark.measured(work)


def by_size(model, pairs, args):
    """{"batches": what `measured` gives of each, "shares": seconds with prompts once, and twice}."""
    from prefline.training import logps

    logps.prepare(model)
    drawn = np.random.default_rng(args.seed)
    ids = drawn.integers(0, args.vocabulary, BATCHES[-1]).tolist()
    rows = [ids[start : start + 512] for start in range(0, len(ids), 512)]
    rows = [(row[:64], [row[64:288], row[288:]]) for row in rows]
    shares = []
    forward(model, rows[:2])
    forward(model, rows[:2])
    for prompt, completion in SHARES:
        ends = [place * completion for place in range(9)]
        parts = [ids[start:end] for start, end in itertools.pairwise(ends)]
        prompts = [ids[start : start + prompt] for start in range(4)]
        once = [(prompts[place], parts[2 * place : 2 * place + 2]) for place in range(4)]
        twice = [(prompts[place // 2], [part]) for place, part in enumerate(parts)]
        shares.append([sum_of(model, groups) for groups in (once, twice)])
    return {"batches": [forward(model, rows[: tokens // 512]) for tokens in BATCHES], "shares": shares}


def sum_of(model, groups):
    """Seconds (as `measured` has them) of a forward pass for each group."""
    return sum(np.array(forward(model, [group])["seconds"]) for group in groups).tolist()


def main():
    parser = benchmark.parser(__doc__)
    parser.add_argument("--batch-tokens", type=int, default=16384, help="as the resource of the rule")
    args = parser.parse_args()
    if args.measure:
        model, pairs = benchmark.load(args, args.dtype)
        model.eval()
        way = {"ours": ours, "published": published, "TRL": trl, "by size": by_size}[args.measure]
        print(f"MEASURED {json.dumps(way(model, pairs, args))}")
        return
    with tempfile.TemporaryDirectory() as model:
        needed = benchmark.make(model, args)
        made = {which: benchmark.in_a_process("measurements.logps", which, model) for which in WAYS}
        sizes = benchmark.in_a_process("measurements.logps", "by size", model)
    benchmark.table(made, dict.fromkeys(made, args.pairs), needed / args.pairs)
    wanted, tolerance = np.array(made["ours"]["found"]), TOLERANCE[args.dtype]
    for which, one in made.items():
        apart = np.abs(one["found"] / wanted - 1).max()
        print(f"sums of {which} are within {apart:.0e} of ours")
        if not apart <= tolerance:
            sys.exit(f"{which}: sums differ by {apart:.1e} of themselves, more than {tolerance}")
    print(f"sums are {-wanted.max():.0f} to {-wanted.min():.0f} nats")
    clock = {"cpu": 1, "cuda": 0}[benchmark.device()]
    name = ("time", "CPU time")[clock]
    print(f"\n| tokens of a batch | {name} per token | memory for the work |\n|---|---|---|")
    for tokens, one in zip(BATCHES, sizes["batches"], strict=True):
        print(f"| {tokens} | {one['seconds'][clock] / tokens * 1e6:.1f} µs | {one['added']:.0f} MB |")
    print(f"\n| prompt | each completion | {name} with the prompt twice / once |\n|---|---|---|")
    for (prompt, completion), (once, twice) in zip(SHARES, sizes["shares"], strict=True):
        print(f"| {prompt} | {completion} | {twice[clock] / once[clock]:.2f} |")


if __name__ == "__main__":
    main()

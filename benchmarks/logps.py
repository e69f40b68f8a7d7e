"""Reference log-probabilities: the project's beside the published recipe's and TRL's, on the same pairs.

A table of pairs/s, ratios by the clock and in CPU time (which other work on the machine disturbs less), and
memory, from one process after another; loading and tokenizing are not counted. Sums agree to a millionth, or
the run fails. The others are

- `published`: prompts padded to 1024 and completions to 2048 tokens, one dialogue at a time, the log-softmax
  of the logits of all positions, as in the REBEL recipe;
- `TRL`: DPOTrainer's precompute_ref_log_probs on batches of 8 pairs (its default) in the data's order.

Then what a token costs, by the tokens of one batch, in pairs of 512 tokens; and what is gained by computing a
prompt once for both completions.

With --texts, pairs are the first and the last response to prompts of a jsonl file whose lines have a
`prompt` and its `responses` (a list, or a dict by model), so that lengths are real. Without it they are the
embedded data's words at lengths like those of public prompts and answers. The model is a Llama of random
weights in float32; its tokenizer is learnt from the texts.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python -m benchmarks.logps --texts answers.jsonl
"""

import itertools
import json
import sys
import tempfile

import numpy as np

from benchmarks import pairs as benchmark

WAYS = ("ours", "published", "TRL")
TOLERANCE = 1e-6  # of a sum
BATCHES = (1024, 4096, 16384, 32768)
SHARES = ((40, 512), (256, 448), (1024, 80))  # tokens of a prompt and of each completion


def ours(model, pairs, args):
    from scripts.common import logps

    logps.prepare(model)
    prompts = [pair["prompt_ids"] for pair in pairs for _ in range(2)]
    completions = [pair[name] for pair in pairs for name in ("chosen_ids", "rejected_ids")]

    def work():
        sums = {}
        for indices, values in logps.score(model, prompts, completions, 1.0, args.batch_tokens):
            sums |= zip(indices, values, strict=True)
        return [sums[index] for index in range(len(prompts))]

    return benchmark.measured(work)


def published(model, pairs, args):
    import torch

    def work():
        with torch.no_grad():
            return [
                benchmark.published(model, pair["prompt_ids"], [pair[name]]).item()
                for pair in pairs
                for name in ("chosen_ids", "rejected_ids")
            ]

    return benchmark.measured(work)


def trl(model, pairs, args):
    """Only the pass over the data is measured: tokenizing comes first, of one row that is not looked at."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    found = {}

    class Measured(DPOTrainer):
        def _precompute_ref_logps(self, dataset, name, batch_size):
            def work():
                made = super(Measured, self)._precompute_ref_logps(Dataset.from_list(pairs), name, batch_size)
                columns = made["ref_chosen_logps"], made["ref_rejected_logps"]
                return [float(value) for both in zip(*columns, strict=True) for value in both]

            found.update(benchmark.measured(work))
            return dataset

    with tempfile.TemporaryDirectory() as directory:
        Measured(
            model,
            args=DPOConfig(
                directory,
                precompute_ref_log_probs=True,
                max_length=None,
                bf16=False,
                use_cpu=True,
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
            processing_class=AutoTokenizer.from_pretrained(args.model, trust_remote_code=False),
        )
    return found


def forward(model, groups):
    """What `measured` gives of one forward pass, without gradients."""
    import torch

    from scripts.common import logps

    batch = logps.collate(groups)

    def work():
        with torch.inference_mode():
            logps.completion_logps(model, **batch, temperature=1.0)

    return benchmark.measured(work)


def by_size(model, pairs, args):
    """{"batches": what `measured` gives of each, "shares": seconds with prompts once, and twice}."""
    from scripts.common import logps

    logps.prepare(model)
    drawn = np.random.default_rng(args.seed)
    ids = drawn.integers(0, args.vocabulary, BATCHES[-1]).tolist()
    rows = [ids[start : start + 512] for start in range(0, len(ids), 512)]
    rows = [(row[:64], [row[64:288], row[288:]]) for row in rows]
    shares = []
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
    """Seconds of CPU time of a forward pass for each group."""
    return sum(forward(model, [group])["seconds"][1] for group in groups)


def main():
    parser = benchmark.parser(__doc__)
    parser.add_argument("--batch-tokens", type=int, default=16384, help="as the resource of the rule")
    args = parser.parse_args()
    if args.measure:
        model, pairs = benchmark.load(args.model)
        model.eval()
        way = {"ours": ours, "published": published, "TRL": trl, "by size": by_size}[args.measure]
        made = way(model, pairs, args)
        print(f"MEASURED {json.dumps(made)}")
        return
    with tempfile.TemporaryDirectory() as model:
        benchmark.make(model, args)
        made = {which: benchmark.in_a_process("benchmarks.logps", which, model) for which in WAYS}
        sizes = benchmark.in_a_process("benchmarks.logps", "by size", model)
    benchmark.table(made, dict.fromkeys(made, args.pairs))
    wanted = np.array(made["ours"]["found"])
    for which, one in made.items():
        apart = np.abs(one["found"] / wanted - 1).max()
        if not apart <= TOLERANCE:
            sys.exit(f"{which}: sums differ by {apart:.1e} of themselves, more than {TOLERANCE}")
    print(f"sums are {-wanted.max():.0f} to {-wanted.min():.0f} nats and agree to {TOLERANCE}")
    print("\n| tokens of a batch | CPU time per token | memory for the work |\n|---|---|---|")
    for tokens, one in zip(BATCHES, sizes["batches"], strict=True):
        print(f"| {tokens} | {one['seconds'][1] / tokens * 1e6:.0f} µs | {one['added']:.0f} MB |")
    print("\n| prompt | each completion | CPU time with the prompt twice / once |\n|---|---|---|")
    for (prompt, completion), (once, twice) in zip(SHARES, sizes["shares"], strict=True):
        print(f"| {prompt} | {completion} | {twice / once:.2f} |")


if __name__ == "__main__":
    main()

"""Reference log-probabilities: the project's beside the published recipe's and TRL's, on the same pairs.

A table of pairs/s, ratios by the clock and in CPU time (which other work on the machine disturbs less), and
memory, from one process after another; loading and tokenizing are not counted. Sums agree to a millionth, or
the run fails. The others are

- `published`: prompts padded to 1024 and completions to 2048 tokens, one dialogue at a time, the log-softmax
  of the logits of all positions, as in the REBEL recipe;
- `TRL`: DPOTrainer's precompute_ref_log_probs on batches of 8 pairs (its default) in the data's order.

Then what a token costs, by the tokens of one batch, in dialogues of 512 tokens.

With --texts, pairs are the first and the last response to prompts of a jsonl file whose lines have a
`prompt` and its `responses` (a list, or a dict by model), so that lengths are real. Without it they are the
embedded data's words at lengths like those of public prompts and answers. The model is a Llama of random
weights in float32; its tokenizer is learnt from the texts.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python -m benchmarks.logps --texts answers.jsonl
"""

import json
import sys
import tempfile

import numpy as np

from benchmarks import pairs as benchmark

WAYS = ("ours", "published", "TRL")
TOLERANCE = 1e-6  # of a sum
BATCHES = (1024, 4096, 16384, 32768)


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
            processing_class=AutoTokenizer.from_pretrained(args.model),
        )
    return found


def linearity(model, args):
    """{tokens of a batch: what `measured` gives}, a batch being one forward pass."""
    import torch

    from scripts.common import logps

    logps.prepare(model)
    drawn, made = np.random.default_rng(args.seed), {}
    for tokens in BATCHES:
        ids = drawn.integers(0, args.vocabulary, (tokens // 512, 512)).tolist()
        batch = logps.collate([(row[:64], [row[64:288], row[288:]]) for row in ids])

        def work(batch=batch):
            with torch.inference_mode():
                logps.completion_logps(model, **batch, temperature=1.0)

        made[tokens] = benchmark.measured(work)
    return made


def main():
    parser = benchmark.parser(__doc__)
    parser.add_argument("--batch-tokens", type=int, default=16384, help="as the resource of the rule")
    args = parser.parse_args()
    if args.measure:
        model, pairs = benchmark.load(args.model)
        model.eval()
        if args.measure == "linearity":
            made = linearity(model, args)
        else:
            made = {"ours": ours, "published": published, "TRL": trl}[args.measure](model, pairs, args)
        print(f"MEASURED {json.dumps(made)}")
        return
    with tempfile.TemporaryDirectory() as model:
        benchmark.make(model, args)
        made = {which: benchmark.in_a_process("benchmarks.logps", which, model) for which in WAYS}
        linear = benchmark.in_a_process("benchmarks.logps", "linearity", model)
    benchmark.table(made, dict.fromkeys(made, args.pairs))
    wanted = np.array(made["ours"]["found"])
    for which, one in made.items():
        apart = np.abs(one["found"] / wanted - 1).max()
        if not apart <= TOLERANCE:
            sys.exit(f"{which}: sums differ by {apart:.1e} of themselves, more than {TOLERANCE}")
    print(f"sums are {-wanted.max():.0f} to {-wanted.min():.0f} nats and agree to {TOLERANCE}")
    print("\n| tokens of a batch | CPU time per token | memory for the work |\n|---|---|---|")
    for tokens, one in linear.items():
        print(f"| {tokens} | {one['seconds'][1] / int(tokens) * 1e6:.0f} µs | {one['added']:.0f} MB |")


if __name__ == "__main__":
    main()

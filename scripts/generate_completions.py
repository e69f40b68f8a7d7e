"""Sample completions for a shard of prompts from a policy: token ids in, token ids out.

Every completion has a seed of its own, derived from the prompt and the sample's number: it is the same in
whatever shard, order or batch it is made. Those that the journal has from an earlier job are not made again,
and without a missing one no model is loaded.

    reads   prompt_id, messages, prompt_ids
    writes  prompt_id, sample (0 … K-1), completion_ids (with the end token, if it stopped), completion
            (text, without), finish_reason ("stop" or "length"), seed; in the order of prompts, then samples

    python -m scripts.generate_completions --prompts results/samples/sft/prompts/train-00000.parquet \\
        --model results/models/sft --engine transformers --num-completions 5 --temperature 0.7 --top-p 1.0 \\
        --top-k 0 --max-tokens 64 --batch-size 256 --dtype float32 --seed 1 \\
        --journal work/journal --out results/samples/sft/completions/train-00000.parquet
"""

import argparse
import time
from dataclasses import asdict

from scripts.common import engines, errors, journal, seeds, tables


def requests_for(prompts, num_completions, seed):
    """(prompt_id, sample, Request) for every completion of `prompts` (rows), in the order of the artifact."""
    return [
        (
            row["prompt_id"],
            sample,
            engines.Request(row["prompt_ids"], seeds.derive(seed, "completion", row["prompt_id"], sample)),
        )
        for row in prompts
        for sample in range(num_completions)
    ]


def text_of(completion, tokenizer):
    """A Completion's text (str), without the token that ended it."""
    ids = completion.ids[:-1] if completion.finish_reason == "stop" else completion.ids
    return tokenizer.decode(ids, skip_special_tokens=True)


def generate(engine, wanted, sampling):
    """Yield what the model says, as {key: columns of the artifact}, for the dict `wanted` of Requests by key.

    Prints how it goes.
    """
    keys, done, tokens, began = list(wanted), 0, 0, time.monotonic()
    for start, completions in engines.generate(engine, list(wanted.values()), sampling):
        yield {
            name: {
                "completion_ids": completion.ids,
                "completion": text_of(completion, engine.tokenizer),
                "finish_reason": completion.finish_reason,
            }
            for name, completion in zip(keys[start:], completions, strict=False)
        }
        done += len(completions)
        tokens += sum(len(completion.ids) for completion in completions)
        rate = tokens / (time.monotonic() - began)
        print(f"{done} of {len(keys)} completions, {tokens} tokens, {rate:.0f} tokens/s", flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", required=True, help="a shard of prompts (parquet)")
    parser.add_argument("--model", required=True, help="the policy's directory")
    parser.add_argument("--engine", required=True, help="what runs the model: transformers")
    parser.add_argument("--num-completions", type=int, required=True, help="completions per prompt")
    parser.add_argument("--temperature", type=float, required=True, help="0: the likeliest token")
    parser.add_argument("--top-p", type=float, required=True, help="1: all tokens")
    parser.add_argument("--top-k", type=int, required=True, help="0: all tokens")
    parser.add_argument("--max-tokens", type=int, required=True, help="longest completion")
    parser.add_argument("--batch-size", type=int, required=True, help="completions decoded together")
    parser.add_argument("--dtype", required=True, help="of the weights: float32, bfloat16 or float16")
    parser.add_argument("--seed", type=int, required=True, help="the experiment's seed")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--out", required=True, help="completions (parquet)")
    args = parser.parse_args(argv)

    prompts = tables.read_rows(args.prompts, tables.PROMPTS)
    sampling = engines.Sampling(args.temperature, args.top_p, args.top_k, args.max_tokens)
    shaped_by = journal.context(
        "generate_completions",
        args.model,
        engines.packages(args.engine),
        engine=args.engine,
        dtype=args.dtype,
        **asdict(sampling),
    )

    def make(missing):
        engine = engines.load(args.engine, args.model, args.batch_size, args.dtype)
        return generate(engine, missing, sampling)

    wanted = [
        (journal.key(request.prompt_ids, request.seed), prompt_id, sample, request)
        for prompt_id, sample, request in requests_for(prompts, args.num_completions, args.seed)
    ]
    made = journal.Journal(args.journal, "completions", shaped_by, args.model).rows(
        {name: request for name, _, _, request in wanted}, make
    )
    rows = [
        {"prompt_id": prompt_id, "sample": sample, "seed": request.seed, **made[name]}
        for name, prompt_id, sample, request in wanted
    ]
    tables.write(args.out, rows, tables.COMPLETIONS)
    stopped = sum(row["finish_reason"] == "stop" for row in rows)
    print(f"{len(rows)} completions; {stopped} stopped by themselves, {len(rows) - stopped} were cut off")


if __name__ == "__main__":
    errors.run(main)

"""Sample completions for a shard of prompts from a policy: token ids in, token ids out.

Every completion has a seed of its own, derived from the prompt and the sample's number: it is the same in
whatever shard, order or batch it is made. Those that the journal has from an earlier job are not made again,
and without a missing one no model is loaded.

    reads   prompt_id, messages, prompt_ids
    writes  prompt_id, sample (0 … K-1), completion_ids (with the end token, if it stopped), completion
            (text, without), finish_reason ("stop", "length", or "error" where the engine gave up), seed; in
            the order of prompts, then samples

    python -m scripts.generate.generate_completions \\
        --prompts results/samples/sft/prompts/train-00000.parquet \\
        --model results/models/sft --engine vllm … --num-completions 5 --temperature 0.7 --top-p 1.0 \\
        --top-k 0 --max-tokens 64 --dtype float32 --seed 1 \\
        --journal work/journal --out results/samples/sft/completions/train-00000.parquet \\
        --metrics results/samples/sft/generation/train-00000.json
"""

from collections import Counter
from dataclasses import asdict

from prefline import engines, errors, files, seeds
from prefline.config import section
from prefline.data import tables
from prefline.engines import generation_metrics, pace
from prefline.provenance import journal

# Stands where a request was given up: the shard is whole, and what follows drops it.
GIVEN_UP = {"completion_ids": [], "completion": "", "finish_reason": "error"}


def requests_for(prompts, num_completions, seed):
    """(prompt_id, sample, Request) for every completion of `prompts` (rows), in the order of the artifact."""
    return [
        (
            row["prompt_id"],
            sample,
            engines.Request(
                row["prompt_ids"],
                seeds.derive(seed, "completion", row["prompt_id"], sample),
                f"prompt_id {row['prompt_id']}, sample {sample}",
            ),
        )
        for row in prompts
        for sample in range(num_completions)
    ]


def text_of(completion, tokenizer):
    """A Completion's text (str), without the token that ended it."""
    ids = completion.ids[:-1] if completion.finish_reason == "stop" else completion.ids
    return tokenizer.decode(ids, skip_special_tokens=True)


def generate(engine, wanted, prompt_of, sampling, progress):
    """Yield what the model says, as {key: columns of the artifact}, for the dict `wanted` of Requests by key.

    prompt_of: {key: prompt_id}. What the engine gives up is left out, and tried again by the next job that
    wants it.
    """
    keys = list(wanted)
    for index, completion in engine.stream(list(wanted.values()), sampling):
        progress.add(prompt_of[keys[index]], len(completion.ids))
        if completion.finish_reason != "error":
            yield {
                keys[index]: {
                    "completion_ids": completion.ids,
                    "completion": text_of(completion, engine.tokenizer),
                    "finish_reason": completion.finish_reason,
                }
            }


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--prompts", required=True, help="a shard of prompts (parquet)")
    parser.add_argument("--model", required=True, help="the policy's directory")
    engines.add(parser)
    section.add(parser, "generate", "num_completions", "temperature", "top_p", "top_k", "max_tokens")
    section.add(parser, "seed")
    pace.add(parser)
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--out", required=True, help="completions (parquet)")
    parser.add_argument("--metrics", required=True, help="counts, times and memory (json)")
    args = parser.parse_args(argv)

    prompts = tables.read_rows(args.prompts, tables.PROMPTS)
    settings = section.pick(engines.Settings, vars(args))
    sampling = section.pick(engines.Sampling, vars(args))
    shaped_by = journal.context(
        "scripts/generate/generate_completions.py",
        args.model,
        engines.packages(args.engine),
        **asdict(settings),
        **asdict(sampling),
    )
    wanted = [
        (journal.key(request.prompt_ids, request.seed), prompt_id, sample, request)
        for prompt_id, sample, request in requests_for(prompts, args.num_completions, args.seed)
    ]
    prompt_of = {name: prompt_id for name, prompt_id, _, _ in wanted}
    run = {"made": 0}

    def make(missing):
        # With a seed per shard, another shard, or the rest of this one, draws from another stream.
        drawn = next(iter(missing.values())).seed
        engine = engines.start(args.model, settings, section.pick(pace.Pace, vars(args)), drawn)
        progress = generation_metrics.Progress(Counter(prompt_of[name] for name in missing))
        try:
            yield from generate(engine, missing, prompt_of, sampling, progress)
            run.update(generation_metrics.of_run(engine, progress))
        finally:
            engine.close()

    made = journal.Journal(args.journal, "completions", shaped_by, args.model).rows(
        {name: request for name, _, _, request in wanted}, make
    )
    rows = [
        {"prompt_id": prompt_id, "sample": sample, "seed": request.seed, **made.get(name, GIVEN_UP)}
        for name, prompt_id, sample, request in wanted
    ]
    tables.write(args.out, rows, tables.COMPLETIONS)
    shard = generation_metrics.of_shard(prompts, rows)
    files.write_json(args.metrics, {"engine": args.engine, **shard, **run})
    reasons = Counter(shard["finish_reasons"])
    print(
        f"{len(rows)} completions; {reasons['stop']} stopped by themselves, {reasons['length']} were cut "
        f"off, {reasons['error']} given up"
    )


if __name__ == "__main__":
    errors.run(main)

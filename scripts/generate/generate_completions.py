"""Sample completions for a shard of prompts from a policy: token ids in, token ids out.

Every completion has its own seed, derived from the prompt and the sample's number: it is the same in any
shard, order or batch. Completions in the journal of an earlier job are reused, and if none is missing no
model is loaded.

    reads   prompt_id, messages, prompt_ids
    writes  prompt_id, sample (0 … K-1), completion_ids (with the end token, if it stopped), completion
            (text, without), answer (the text without reasoning, null where there is none), finish_reason
            ("stop", "length", or "error" where the engine gave up), seed; in the order of prompts, then
            samples

A completion that never leaves its reasoning has no answer: it counts as cut off, whatever ended it.

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
from prefline.text import chat

# The row of a request that was given up: the shard stays complete, and the next step drops the row.
GIVEN_UP = {"completion_ids": [], "completion": "", "answer": None, "finish_reason": "error"}


def requests_for(prompts, num_completions, seed):
    """Return (prompt_id, sample, Request) for every completion of `prompts` (rows), in artifact order."""
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


def columns_of(completion, tokenizer):
    """Return the artifact's columns (dict) of a Completion."""
    stopped = completion.finish_reason == "stop"
    said = chat.said(tokenizer, completion.ids[:-1] if stopped else completion.ids)
    return {
        "completion_ids": completion.ids,
        "completion": said.text,
        "answer": None if said.answer == said.text else said.answer or "",
        "finish_reason": "length" if said.answer is None else completion.finish_reason,
    }


def generate(engine, wanted, prompt_of, sampling, progress):
    """Yield completions, as {key: columns of the artifact}, for the dict `wanted` of Requests by key.

    prompt_of: {key: prompt_id}. Requests that the engine gives up are left out, and the next job that needs
    them tries again.
    """
    keys = list(wanted)
    for index, completion in engine.stream(list(wanted.values()), sampling):
        progress.add(prompt_of[keys[index]], len(completion.ids))
        if completion.finish_reason != "error":
            yield {keys[index]: columns_of(completion, engine.tokenizer)}


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--prompts", required=True, help="a shard of prompts (parquet)")
    parser.add_argument("--model", required=True, help="the policy's directory")
    engines.add(parser)
    section.add(parser, "generate", "num_completions", "temperature", "top_p", "top_k", "max_tokens")
    section.add(parser, "prompts", "max_prompt_length")
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
        tokens = args.max_prompt_length + args.max_tokens
        engine = engines.start(args.model, settings, section.pick(pace.Pace, vars(args)), drawn, tokens)
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
        f"{len(rows)} completions; {reasons['stop']} ended, {reasons['length']} were cut off, "
        f"{reasons['error']} given up"
    )


if __name__ == "__main__":
    errors.run(main)

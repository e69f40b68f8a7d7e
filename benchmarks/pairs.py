"""What benchmarks of preference pairs share: pairs, a model, the published way, a process for each way."""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import ranking

PROMPT, COMPLETION = 1024, 2048  # what the published recipe pads to
MEAN_TOKENS, SPREAD = (38, 516, 516), 0.7  # of prompts and completions, log-normal


def parser(description):
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--texts", help="jsonl with `prompt` and `responses`; without: the embedded data")
    made.add_argument("--pairs", type=int, default=16)
    made.add_argument("--layers", type=int, default=8)
    made.add_argument("--hidden-size", type=int, default=384)
    made.add_argument("--vocabulary", type=int, default=8192)
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--model", help=argparse.SUPPRESS)
    made.add_argument("--measure", help=argparse.SUPPRESS)
    return made


def make(directory, args, cut=None):
    """A Llama of random weights, its tokenizer and the pairs, in `directory`; prints their sizes.

    cut: int or None, the tokens that a prompt or completion is cut to.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained("data/policy", trust_remote_code=False)
    tokenizer = tokenizer.train_new_from_iterator(ranking.corpus(args.texts), args.vocabulary)
    tokenizer.model_max_length = PROMPT + COMPLETION
    tokenizer.save_pretrained(directory)
    pairs = make_pairs(args, tokenizer, cut)
    (Path(directory) / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    heads = max(args.hidden_size // 64, 1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden_size,
        intermediate_size=4 * args.hidden_size,
        num_hidden_layers=args.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=PROMPT + COMPLETION,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(args.seed)
    model = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    means = [np.mean([len(ids) for ids in column]) for column in zip(*map(dict.values, pairs), strict=True)]
    print(f"a Llama of {args.layers} x {args.hidden_size}, {parameters / 1e6:.1f}M parameters, float32")
    print(f"{len(pairs)} pairs, {' + '.join(f'{mean:.0f}' for mean in means)} tokens on average")


def make_pairs(args, tokenizer, cut):
    """[{"prompt_ids", "chosen_ids", "rejected_ids"}], lists of int, each of at most `cut` tokens.

    The recipe's limits apply in any case: what is longer is left out.
    """
    found = []
    for pair in of_texts(args, tokenizer) if args.texts else of_words(args, tokenizer):
        if len(pair[0]) <= PROMPT and max(map(len, pair[1:])) <= COMPLETION:
            ids = [part[:cut] for part in pair]
            found.append(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), ids, strict=True)))
        if len(found) == args.pairs:
            return found
    sys.exit(f"{args.texts} has {len(found)} pairs, fewer than --pairs")


def of_texts(args, tokenizer):
    rows = [json.loads(line) for line in Path(args.texts).read_text(encoding="utf-8").splitlines()]
    random.Random(args.seed).shuffle(rows)
    for row in rows:
        chosen, *_, rejected = ranking.answers(row["responses"])
        message = {"role": "user", "content": row["prompt"]}
        prompt = tokenizer.apply_chat_template([message], add_generation_prompt=True)["input_ids"]
        completions = tokenizer([chosen, rejected], add_special_tokens=False)["input_ids"]
        yield [prompt, *([*ids, tokenizer.eos_token_id] for ids in completions)]


def of_words(args, tokenizer):
    drawn = random.Random(args.seed)
    words = tokenizer(" ".join(ranking.corpus(None)), add_special_tokens=False)["input_ids"]
    while True:
        lengths = [drawn.lognormvariate(np.log(mean) - SPREAD**2 / 2, SPREAD) for mean in MEAN_TOKENS]
        starts = [drawn.randrange(len(words)) for _ in lengths]
        yield [
            [words[(start + place) % len(words)] for place in range(round(length))] + [tokenizer.eos_token_id]
            for start, length in zip(starts, lengths, strict=True)
        ]


def load(directory):
    """(model, pairs) that `make` wrote."""
    from transformers import AutoModelForCausalLM

    pairs = json.loads((Path(directory) / "pairs.json").read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype="float32", use_safetensors=True, trust_remote_code=False
    )
    return model, pairs


def published(model, prompt, completions):
    """A prompt's completions' log-probabilities, float32 (completions,), as the published recipe has them.

    Prompts are padded to PROMPT on the left and completions to COMPLETION on the right; the logits of all
    positions are made, and a log-softmax of all the completions'. The temperature is 1.
    """
    import torch

    left = [0] * (PROMPT - len(prompt))
    rows = [left + prompt + ids + [0] * (COMPLETION - len(ids)) for ids in completions]
    attended = torch.zeros(len(rows), PROMPT + COMPLETION, dtype=torch.int64)
    for row, ids in zip(attended, completions, strict=True):
        row[len(left) : PROMPT + len(ids)] = 1
    ids = torch.tensor(rows)
    logits = model(input_ids=ids, attention_mask=attended, use_cache=False).logits[:, PROMPT - 1 : -1]
    table = torch.nn.functional.log_softmax(logits / (1 + 1e-7), dim=-1)
    tokens = table.gather(2, ids[:, PROMPT:, None]).squeeze(-1)
    return (tokens * attended[:, PROMPT:]).sum(-1)


def clocks():
    """Seconds (float64 array [2]) on the clock and of CPU time."""
    return np.array([time.perf_counter(), time.process_time()])


def measured(work):
    """What `work()` gives, its seconds, and its largest memory: in all, and above what was held before."""
    before = memory_of("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    began = clocks()
    found = work()
    seconds = clocks() - began
    largest = memory_of("VmHWM")
    return {"found": found, "seconds": seconds.tolist(), "megabytes": largest, "added": largest - before}


def memory_of(name):
    """MB of this process: VmRSS, now, or VmHWM, the most since the last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_a_process(module, which, model):
    """What `measured` gave in a process of its own, which runs `module` with --measure."""
    command = [sys.executable, "-m", module, *sys.argv[1:], "--model", model, "--measure", which]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in process.stdout.splitlines() if line.startswith("MEASURED ")]
    if not lines:
        sys.exit(f"{which}: {process.stderr[-3000:]}")
    return json.loads(lines[-1].removeprefix("MEASURED "))


def table(made, numbers):
    """Print a row for each way. made: {way: what `measured` gives}, ours first; numbers: {way: its pairs}."""
    seconds = {which: np.array(one["seconds"]) / numbers[which] for which, one in made.items()}
    ours = next(iter(seconds.values()))
    print(
        "| way | pairs/s | pairs per s of CPU | ours is faster by | in CPU time by | memory | for the work |"
    )
    print("|---|---|---|---|---|---|---|")
    for which, one in made.items():
        clock, cpu = seconds[which] / ours
        rates = " | ".join(f"{1 / each:.2f}" for each in seconds[which])
        memory = f"{one['megabytes']:.0f} MB | {one['added']:.0f} MB"
        print(f"| {which} | {rates} | {clock:.2f} | {cpu:.2f} | {memory} |")

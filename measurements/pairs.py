"""What benchmarks of preference pairs share: pairs, a model, the published way, a process for each way.

Where there is a GPU the work is done there: memory is then that of the GPU, and in place of CPU time stand
the FLOPs that the pairs need, as a share of the rate at which the GPU multiplies large matrices. They need
each token once, a prompt once for both completions, and the head on completions alone: padding and whatever
is computed twice count for nothing.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from measurements import ranking
from prefline.training import utilization

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
    made.add_argument("--intermediate-size", type=int, help="without: four times the hidden size")
    made.add_argument("--heads", type=int, help="without: the hidden size by 64")
    made.add_argument("--kv-heads", type=int, help="without: as many as heads")
    made.add_argument("--vocabulary", type=int, default=8192)
    made.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--model", help=argparse.SUPPRESS)
    made.add_argument("--measure", help=argparse.SUPPRESS)
    return made


def make(directory, args, cut=None):
    """The configuration of a Llama, its tokenizer and the pairs, in `directory`; prints their sizes.

    cut: int or None, the tokens that a prompt or completion is cut to. Returns the FLOPs (float) of a forward
    pass that computes all that the pairs need and nothing else.
    """
    from transformers import AutoTokenizer, LlamaConfig

    tokenizer = AutoTokenizer.from_pretrained("data/policy", trust_remote_code=False)
    tokenizer = tokenizer.train_new_from_iterator(ranking.corpus(args.texts), args.vocabulary)
    tokenizer.model_max_length = PROMPT + COMPLETION
    tokenizer.save_pretrained(directory)
    pairs = make_pairs(args, tokenizer, cut)
    (Path(directory) / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    heads = args.heads or max(args.hidden_size // 64, 1)
    config = LlamaConfig(
        vocab_size=max(len(tokenizer), args.vocabulary),
        hidden_size=args.hidden_size,
        intermediate_size=args.intermediate_size or 4 * args.hidden_size,
        num_hidden_layers=args.layers,
        num_attention_heads=heads,
        num_key_value_heads=args.kv_heads or heads,
        max_position_embeddings=PROMPT + COMPLETION,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.save_pretrained(directory)
    body, head = weights(config)
    parameters = body * config.num_hidden_layers + 2 * head
    means = [np.mean([len(ids) for ids in column]) for column in zip(*map(dict.values, pairs), strict=True)]
    print(f"a Llama of {args.layers} x {args.hidden_size}, {parameters / 1e6:.1f}M parameters, {args.dtype}")
    print(f"{len(pairs)} pairs, {' + '.join(f'{mean:.0f}' for mean in means)} tokens on average")
    return flops(config, pairs)


def weights(config):
    """(weights of a layer's matrices, weights of the head), int."""
    kv = config.hidden_size * config.num_key_value_heads // config.num_attention_heads
    layer = config.hidden_size * (2 * config.hidden_size + 2 * kv + 3 * config.intermediate_size)
    return layer, config.vocab_size * config.hidden_size


def flops(config, pairs):
    """As `make` returns them: 2 for each weight and token, and what each token does with those it sees."""
    layer, head = weights(config)
    total = 0
    for pair in pairs:
        prompt, *completions = (len(ids) for ids in pair.values())
        seen = prompt**2 / 2 + sum(length * (prompt + length / 2) for length in completions)
        total += 2 * config.num_hidden_layers * layer * (prompt + sum(completions))
        total += 4 * config.num_hidden_layers * config.hidden_size * seen
        total += 2 * head * sum(completions)
    return total


def device():
    """Where the work is done (str)."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def matrix_rate():
    """FLOP/s (float) of this GPU in products of 8192 x 8192 matrices in bfloat16: the median of ten."""
    import torch

    one, other = torch.randn(2, 8192, 8192, device="cuda", dtype=torch.bfloat16).unbind()
    seconds = []
    for _ in range(13):
        torch.cuda.synchronize()
        began = time.perf_counter()
        one @ other
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * 8192**3 / np.median(seconds[3:])


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


def load(args, dtype):
    """(a model of random weights, the same for the same seed, and the pairs) of what `make` wrote."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(args.seed)
    config = AutoConfig.from_pretrained(args.model, trust_remote_code=False)
    with torch.device(device()):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), trust_remote_code=False)
    return model, read_pairs(args.model)


def read_pairs(directory):
    return json.loads((Path(directory) / "pairs.json").read_text(encoding="utf-8"))


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
    ids, attended = torch.tensor(rows, device=model.device), attended.to(model.device)
    logits = model(input_ids=ids, attention_mask=attended, use_cache=False).logits[:, PROMPT - 1 : -1]
    table = torch.nn.functional.log_softmax(logits / (1 + 1e-7), dim=-1)
    tokens = table.gather(2, ids[:, PROMPT:, None]).squeeze(-1)
    return (tokens * attended[:, PROMPT:]).sum(-1)


def measured(work):
    """What `work()` gives, its seconds, and its largest memory: in all, and above what was held before."""
    before = start_counting()
    began = clocks()
    found = work()
    seconds = clocks() - began
    largest = largest_memory()
    return {"found": found, "seconds": seconds.tolist(), "megabytes": largest, "added": largest - before}


def clocks():
    """Seconds (float64 array [2]) on the clock and of CPU time, once the GPU has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def start_counting():
    """MB that are held now; from here on counts what largest_memory tells."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    return memory_of("VmRSS")


def largest_memory():
    """The most MB since start_counting."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return memory_of("VmHWM")


def memory_of(name):
    """MB of this process: VmRSS, now, or VmHWM, the most since the last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_a_process(module, which, model, *flags):
    """What `measured` gave in a process of its own, which runs `module` with --measure."""
    command = [sys.executable, "-m", module, *sys.argv[1:], "--model", model, "--measure", which, *flags]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in process.stdout.splitlines() if line.startswith("MEASURED ")]
    if not lines:
        sys.exit(f"{which}: {process.stderr[-3000:]}")
    return json.loads(lines[-1].removeprefix("MEASURED "))


def table(made, numbers, needed):
    """Print a row for each way.

    made: {way: what `measured` gives}, ours first; numbers: {way: its pairs}; needed: FLOPs of a pair, float.
    """
    import torch

    seconds = {which: np.array(one["seconds"]) / numbers[which] for which, one in made.items()}
    ours = next(iter(seconds.values()))
    gpu = device() == "cuda"
    columns = ["TFLOP/s", "of the matrix rate, the peak"] if gpu else ["pairs per s of CPU", "in CPU time by"]
    print(f"| way | pairs/s | ours is faster by | {' | '.join(columns)} | memory | for the work |")
    print("|---|---|---|---|---|---|---|")
    rate = matrix_rate() if gpu else None
    peak = utilization.peak(torch.cuda.get_device_name()) if gpu else None
    for which, one in made.items():
        clock, cpu = seconds[which]
        more = f"{1 / cpu:.2f} | {cpu / ours[1]:.2f}"
        if gpu:
            flops = needed / clock
            more = f"{flops / 1e12:.0f} | {flops / rate:.0%}, {f'{flops / peak:.1%}' if peak else 'unknown'}"
        memory = f"{one['megabytes']:.0f} MB | {one['added']:.0f} MB"
        print(f"| {which} | {1 / clock:.2f} | {clock / ours[0]:.2f} | {more} | {memory} |")
    if gpu:
        print(f"{torch.cuda.get_device_name()}, matrix rate {rate / 1e12:.0f} TFLOP/s")

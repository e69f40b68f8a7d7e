"""Generation speed: the vllm engine beside a bare vLLM loop, the transformers engine beside one at a time.

A table of tokens/s and their ratios, from one process after another on the same prompts, weights and
sampling; the start of the engine is not counted. What each is compared with:

- `vllm`: `LLM.generate` on all prompts, with the same seeds and, as most people run it, with n=4 and none;
- `transformers`: `model.generate` on one prompt at a time, as FastChat's gen_model_answer does.

Without --texts, prompts are of the embedded data; with it, of a file of real ones, so that lengths are real.
The model has the shape that --layers and --hidden-size say, a vocabulary of its own and random weights: what
it says never ends, so every completion has --max-tokens.

    python -m measurements.generation
    python -m measurements.generation --texts prompts.jsonl --layers 8 --hidden-size 256
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from prefline.config import section

DATA = Path("data/world/prompts.jsonl")
OPTIONS = {
    "tensor_parallel_size": 1,
    "gpu_memory_percent": 90,
    "max_num_batched_tokens": 0,
    "max_model_len": 0,
    "quantization": None,
    "kv_cache_dtype": "auto",
    "enforce_eager": False,
}


def texts(path, number):
    """The first `number` prompts (list of str) of a jsonl file, again from the start if it has fewer."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    found = [row["prompt"] if "prompt" in row else row["messages"][-1]["content"] for row in rows]
    return [found[row % len(found)] for row in range(number)]


def make_model(directory, layers, hidden_size, dtype):
    """A Llama of random weights with the tokenizer of the embedded policy, in `directory`."""
    import shutil

    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    for file in Path("data/policy").iterdir():
        shutil.copy(file, directory)
    tokenizer = AutoTokenizer.from_pretrained("data/policy", trust_remote_code=False)
    torch.manual_seed(0)
    heads = max(hidden_size // 64, 1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    # An end token that is never likely: all completions are equally long, and all runs do the same work.
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 0
        model.lm_head.weight *= 4
    model.save_pretrained(directory)
    (Path(directory) / "generation_config.json").write_text(
        json.dumps({"eos_token_id": tokenizer.eos_token_id}), encoding="utf-8"
    )


def measure(which, args):
    """(tokens, seconds) of one way to answer, the engine's start excluded."""
    from prefline import engines, seeds
    from prefline.text import chat

    tokenizer = chat.load_tokenizer(args.model)
    prompts = [
        chat.prompt_ids(tokenizer, [{"role": "user", "content": text}])[: args.longest_prompt]
        for text in texts(args.texts, args.prompts)
    ]
    copies = args.num_completions
    requests = [
        engines.Request(prompt, seeds.derive(1, "benchmark", row, sample))
        for row, prompt in enumerate(prompts)
        for sample in range(copies)
    ]
    sampling = engines.Sampling(temperature=0.8, top_p=1.0, top_k=0, max_tokens=args.max_tokens)
    few = requests[: 4 * copies]
    if which in ("vllm engine", "vllm engine, seed per shard"):
        seed_per = "shard" if "shard" in which else "completion"
        options = {"seed_per": seed_per, "seed": 1, **OPTIONS}
        engine = engines.load("vllm", args.model, args.batch_size, args.dtype, **options)
        return timed(engine, few, requests, sampling)
    if which == "transformers engine":
        engine = engines.load("transformers", args.model, args.batch_size, args.dtype)
        return timed(engine, few, requests[: args.transformers_completions], sampling)
    if which == "one at a time":
        return one_at_a_time(args, requests[: args.transformers_completions], sampling)
    return bare(which, args, few, requests, sampling)


def timed(engine, few, requests, sampling):
    engine.generate(few, sampling)
    began = time.perf_counter()
    made = engine.generate(requests, sampling)
    return sum(len(completion.ids) for completion in made), time.perf_counter() - began


def one_at_a_time(args, requests, sampling):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        args.model, dtype=getattr(torch, args.dtype), use_safetensors=True, trust_remote_code=False
    )
    tokens, began = 0, time.perf_counter()
    for request in requests:
        made = model.generate(
            torch.tensor([request.prompt_ids]),
            do_sample=True,
            temperature=sampling.temperature,
            top_k=0,
            max_new_tokens=sampling.max_tokens,
        )
        tokens += made.shape[1] - len(request.prompt_ids)
    return tokens, time.perf_counter() - began


def bare(which, args, few, requests, sampling):
    """A loop as one writes it: all prompts to `LLM.generate`, with the arguments that the engine has."""
    from prefline.engines.model_files import ModelFiles
    from prefline.engines.vllm import engine_arguments, set_environment

    set_environment(apart="n=" not in which)
    from vllm import LLM, SamplingParams

    files = ModelFiles(args.model)
    llm = LLM(**engine_arguments(files, args.batch_size, args.dtype, 1, **OPTIONS))

    def parameters(**more):
        return SamplingParams(
            temperature=sampling.temperature, max_tokens=sampling.max_tokens, detokenize=False, **more
        )

    def ask(wanted):
        if "n=" in which:
            wanted = wanted[:: args.num_completions]
            sampled = parameters(n=args.num_completions)
        else:
            sampled = [parameters(seed=request.seed) for request in wanted]
        prompts = [{"prompt_token_ids": request.prompt_ids} for request in wanted]
        return llm.generate(prompts, sampled, use_tqdm=False)

    ask(few)
    began = time.perf_counter()
    made = ask(requests)
    return sum(len(one.token_ids) for output in made for one in output.outputs), time.perf_counter() - began


PAIRS = (
    ("vllm engine", "bare vLLM, same seeds"),
    ("vllm engine, seed per shard", "bare vLLM, n=4, no seeds"),
    ("transformers engine", "one at a time"),
)


def main():
    parser = section.parser(__doc__)
    parser.add_argument("--texts", default=str(DATA), help="prompts: jsonl with `prompt` or `messages`")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--num-completions", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--longest-prompt", type=int, default=1024, help="tokens; longer ones are cut")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument(
        "--transformers-completions", type=int, default=256, help="fewer: one at a time takes its time"
    )
    parser.add_argument("--rounds", type=int, default=1, help="of each, in turns; the best counts")
    parser.add_argument("--only", default="", help="such as transformers: the rows whose name has it")
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        tokens, seconds = measure(args.measure, args)
        print(f"MEASURED {json.dumps([tokens, seconds])}")
        return
    with tempfile.TemporaryDirectory() as model:
        make_model(model, args.layers, args.hidden_size, args.dtype)
        print(f"{args.prompts} prompts x {args.num_completions}, {args.max_tokens} tokens each")
        print("| ours | tokens/s | beside | tokens/s | ratio |")
        print("|---|---|---|---|---|")
        for pair in [pair for pair in PAIRS if args.only in pair[0]]:
            rates = dict.fromkeys(pair, 0.0)
            for _ in range(args.rounds):
                for which in pair:
                    rates[which] = max(rates[which], rate(which, model))
            ours, other = (rates[which] for which in pair)
            print(f"| {pair[0]} | {ours:.0f} | {pair[1]} | {other:.0f} | {ours / other:.2f} |", flush=True)


def rate(which, model):
    """Tokens/s of one way, in a process of its own."""
    command = [sys.executable, "-m", "measurements.generation", *sys.argv[1:], "--model", model]
    process = subprocess.run(
        [*command, "--measure", which], capture_output=True, text=True, env=os.environ, check=False
    )
    lines = [line for line in process.stdout.splitlines() if line.startswith("MEASURED ")]
    if not lines:
        sys.exit(f"{which}: {process.stderr[-3000:]}")
    tokens, seconds = json.loads(lines[-1].removeprefix("MEASURED "))
    return tokens / seconds


if __name__ == "__main__":
    main()

"""Sampling inside a training: the sampler `vllm` beside `transformers`, with its cache of keys and values.

Each samples a step's completions, trains on them, and samples again with the new weights. A table of the
sampled tokens per second of the process's CPU time, in which vLLM's includes the updates of its weights; of
the CPU time of an update; of the share of the loop in which the trainer waits; and of the process's peak
memory. The start of vLLM is not counted. The loop is the trainers' sampler with one optimizer step on the
likelihood of what was sampled.

The model has random weights. `--end-share` is the part of the vocabulary that ends a completion, so that
lengths are uneven, as those of real answers are: the last columns say how uneven.

    OMP_NUM_THREADS=1 python -m measurements.online
    OMP_NUM_THREADS=1 python -m measurements.online --layers 12 --hidden-size 768 --vocabulary 16384 \\
        --max-tokens 256 --end-share 0.02 --completions 32 --steps 2
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLERS = ("transformers", "vllm")
SHAPE = ("layers", "hidden_size", "vocabulary", "end_share")


def make_model(directory, layers, hidden_size, vocabulary, end_share):
    """A Llama of random weights, tied as the embedded policy's, with its tokenizer, in `directory`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    for file in Path("data/policy").iterdir():
        shutil.copy(file, directory)
    ends = [4, 1, *range(vocabulary - int(end_share * vocabulary), vocabulary)]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=max(hidden_size // 64, 4),
        max_position_embeddings=1024,
        initializer_range=0.02,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=ends,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    (Path(directory) / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))


def run(sampler, directory, prompts, number, max_tokens, steps):
    """What a loop of `steps` steps with one sampler takes (dict)."""
    import torch
    from accelerate import Accelerator
    from transformers import AutoModelForCausalLM

    from prefline import engines
    from prefline.engines.model_files import ModelFiles
    from prefline.training import samplers
    from prefline.training.vllm_sampler import VLLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    )
    model.generation_config.use_cache = True
    longest = max(map(len, prompts)) + max_tokens
    updates = []
    if sampler == "vllm":
        completer = VLLM(directory, len(prompts), "float32", 1, longest, 35)
        update = completer.update

        def timed(policy):
            began = time.process_time()
            update(policy)
            updates.append(time.process_time() - began)

        completer.update = timed
    else:
        completer = samplers.Transformers(Accelerator(cpu=True), ModelFiles(directory).end_tokens)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    sampling = engines.Sampling(1.0, 1.0, 0, max_tokens)
    names = [f"prompt {row}" for row in range(len(prompts))]
    busy, lengths = {"sampling": 0.0, "training": 0.0}, []
    for step in range(-1, steps):
        began = time.process_time()
        asked = samplers.requests(1, names, prompts, step, 0, number)
        made = completer.sample(model, asked, sampling, step)
        sampled = time.process_time()
        ids, attention, _ = samplers.batch(asked, made)
        for rows in torch.arange(len(ids)).split(8):
            labels = ids[rows].masked_fill(~attention[rows], -100)
            loss = model(ids[rows], attention_mask=attention[rows].long(), labels=labels).loss
            (loss * len(rows) / len(ids)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step >= 0:  # the first one warms up
            busy["sampling"] += sampled - began
            busy["training"] += time.process_time() - sampled
            lengths += [len(one.ids) for one in made]
    return {
        "tokens_per_cpu_second": sum(lengths) / busy["sampling"],
        "update_cpu_ms": 1000 * statistics.median(updates or [0]),
        "waiting": busy["sampling"] / sum(busy.values()),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "mean_length": sum(lengths) / len(lengths),
        "longest": max(lengths),
    }


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=2, help="as the embedded policy")
    parser.add_argument("--hidden-size", type=int, default=128, help="as the embedded policy")
    parser.add_argument("--vocabulary", type=int, default=1024, help="as the embedded policy")
    parser.add_argument("--end-share", type=float, default=0.05, help="part of it that ends a completion")
    parser.add_argument("--completions", type=int, default=64, help="of a step, 4 to a prompt")
    parser.add_argument("--max-tokens", type=int, default=64, help="longest completion")
    parser.add_argument("--steps", type=int, default=5, help="samplings that count, after one that does not")
    parser.add_argument("--sampler", choices=SAMPLERS, help="one only, in this process; prints JSON")
    parser.add_argument("--model", help="a model directory, in place of one of random weights")
    args = parser.parse_args(argv)
    if args.sampler:
        from prefline.text import chat

        tokenizer = chat.load_tokenizer(args.model)
        lines = Path("data/world/prompts.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line) for line in lines[: args.completions // 4]]
        rows = [chat.prompt_ids(tokenizer, row["messages"]) for row in texts]
        prompts = [row for row in rows for _ in range(4)]
        print(json.dumps(run(args.sampler, args.model, prompts, 4, args.max_tokens, args.steps)))
        return
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        if args.model is None:
            make_model(directory, *(getattr(args, name) for name in SHAPE))
        for sampler in SAMPLERS:
            words = [sys.executable, "-m", "measurements.online", "--sampler", sampler]
            words += ["--model", args.model or directory]
            for name in ("completions", "max_tokens", "steps"):
                words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
            said = subprocess.run(words, env=os.environ, stdout=subprocess.PIPE, text=True, check=True).stdout
            found[sampler] = json.loads(said.splitlines()[-1])
            print(sampler, {name: round(value, 3) for name, value in found[sampler].items()}, flush=True)
    ratio = found["vllm"]["tokens_per_cpu_second"] / found["transformers"]["tokens_per_cpu_second"]
    print(f"vllm samples {ratio:.2f} times as many tokens per CPU second")


if __name__ == "__main__":
    main()

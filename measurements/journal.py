"""What a job costs whose rows are all in the journal: a shard of completions, nothing to generate.

Writes prompts, a model with a manifest and a journal that holds every completion, then times
`python -m scripts.generate.generate_completions` in a process of its own, its imports included. The engine is
not started: the model has no weights, so the run would fail.

    python -m measurements.journal --completions 10000 --tokens 450
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from prefline import engines, files
from prefline.config import section
from prefline.data import tables
from prefline.provenance import journal
from scripts.generate import generate_completions

SAMPLES, SEED = 5, 1
FLAGS = {
    "engine": "transformers", "dtype": "float32", "seed-per": "completion", "vllm": "{}",
    "served-model": "null", "endpoint": "null", "batch-size": 8, "tensor-parallel-size": 1,
    "gpu-memory-percent": 90, "max-num-batched-tokens": 0, "num-completions": SAMPLES, "temperature": 0.8,
    "top-p": 1.0, "top-k": 0, "max-tokens": 1024, "seed": SEED,
}  # fmt: skip


def fill(folder, completions, tokens):
    """Write prompts, a model without weights, and its journal; each completion has `tokens` random ids."""
    model, drawn = folder / "model", np.random.default_rng(0)
    shutil.copytree("data/policy", model)
    contents = {path.name: files.sha256(path) for path in sorted(model.iterdir())}
    files.write_json(folder / "model.json", {"files": contents})
    prompts = [
        {
            "prompt_id": f"{row:032x}",
            "messages": [{"role": "user", "content": f"Prompt {row}"}],
            "prompt_ids": drawn.integers(5, 500, 220).tolist(),
        }
        for row in range(completions // SAMPLES)
    ]
    tables.write(folder / "prompts.parquet", prompts, tables.PROMPTS)
    settings = {name.replace("-", "_"): value for name, value in FLAGS.items()}
    shaped = {name: settings[name] for name in ("engine", "dtype", "seed_per")}
    sampling = {name: settings[name] for name in ("temperature", "top_p", "top_k", "max_tokens")}
    context = journal.context(
        "scripts/generate/generate_completions.py",
        model,
        engines.packages(FLAGS["engine"]),
        vllm={},
        served_model=None,
        **shaped,
        **sampling,
    )
    requests = generate_completions.requests_for(prompts, SAMPLES, SEED)
    wanted = {journal.key(request.prompt_ids, request.seed): request for _, _, request in requests}

    def make(missing):
        for name in missing:
            ids = drawn.integers(5, 500, tokens).tolist()
            text = "word " * (4 * tokens // 5)
            yield {name: {"completion_ids": ids, "completion": text, "finish_reason": "stop"}}

    journal.Journal(folder / "journal", "completions", context, model).rows(wanted, make)


def main():
    parser = section.parser(__doc__)
    parser.add_argument("--completions", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=450)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        fill(folder, args.completions, args.tokens)
        paths = {"prompts": "prompts.parquet", "model": "model", "journal": "journal"}
        paths |= {"out": "out.parquet", "metrics": "out.json"}
        flags = FLAGS | {name: folder / path for name, path in paths.items()}
        command = [sys.executable, "-m", "scripts.generate.generate_completions"]
        command += [f"--{name}={value}" for name, value in flags.items()]
        for _ in range(args.rounds):
            began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            found = f"{args.completions} of {args.completions} rows are in the journal"
            if done.returncode or found not in done.stdout:
                sys.exit(f"not all was found in the journal:\n{done.stdout}{done.stderr[-3000:]}")
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(json.dumps({"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}), flush=True)
        print(f"{args.completions} completions of {args.tokens} tokens, {after.ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()

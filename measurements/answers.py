"""A policy's MT-Bench answers, beside FastChat's way: one question at a time, turn after turn.

Both answer the embedded 80 questions with a Llama of random weights whose answers all have --max-tokens
tokens, in processes of their own; what is timed is answering, without the start of Python and the loading of
the model. FastChat's way is that of its gen_model_answer: `model.generate` on one dialogue, at the category's
temperature, without a seed.

    python -m measurements.answers
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from measurements.generation import make_model
from prefline.config import section

QUESTIONS = "data/mt_bench/question.jsonl"
TEMPERATURE = 0.7


def ours(args):
    """Seconds and tokens of scripts.mt_bench.answer_mt_bench's two rounds."""
    from prefline import engines
    from prefline.judging import fastchat
    from prefline.provenance import journal
    from scripts.mt_bench import answer_mt_bench

    engine = engines.load("transformers", args.model, args.batch_size, "float32")
    kept = journal.Journal(Path(args.model) / "journal", "answers", {}, "benchmark")
    sampling = engines.Sampling(TEMPERATURE, 1.0, 0, args.max_tokens)
    questions = fastchat.read_questions(QUESTIONS)
    engine.generate([engines.Request([1, 2, 3], 1)], sampling)
    began = time.perf_counter()
    answered, _ = answer_mt_bench.answer_turns(lambda: engine, kept, questions, sampling, seed=1)
    return time.perf_counter() - began, sum(map(len, answered.values()))


def one_at_a_time(args):
    """The same for a loop over the questions."""
    import torch
    from transformers import AutoModelForCausalLM

    from prefline.judging import fastchat
    from prefline.text import chat

    tokenizer = chat.load_tokenizer(args.model)
    model = AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    answered, began = defaultdict(list), time.perf_counter()
    for question in fastchat.read_questions(QUESTIONS):
        messages = []
        for turn in question["turns"]:
            messages.append({"role": "user", "content": turn})
            prompt = chat.prompt_ids(tokenizer, messages)
            made = model.generate(
                torch.tensor([prompt]),
                do_sample=True,
                temperature=TEMPERATURE,
                top_k=0,
                max_new_tokens=args.max_tokens,
            )
            text = tokenizer.decode(made[0, len(prompt) :], skip_special_tokens=True).strip()
            messages.append({"role": "assistant", "content": text})
            answered[question["question_id"]].append(text)
    return time.perf_counter() - began, sum(map(len, answered.values()))


WAYS = {"ours": ours, "one at a time": one_at_a_time}


def main():
    parser = section.parser(__doc__)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        seconds, number = WAYS[args.way](args)
        print(f"{args.way}: {number} answers in {seconds:.1f} s")
        print(seconds)
        return
    seconds = {}
    with tempfile.TemporaryDirectory() as model:
        make_model(model, args.layers, args.hidden_size, "float32")
        for way in WAYS:
            command = [
                sys.executable,
                "-m",
                "measurements.answers",
                *sys.argv[1:],
                "--model",
                model,
                "--way",
                way,
            ]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
            seconds[way] = float(said[-1])
            print(said[-2], flush=True)
    print(f"ratio {seconds['one at a time'] / seconds['ours']:.1f}")


if __name__ == "__main__":
    main()

"""Peak memory of this project's jobs on a CPU, beside what prefline/machine/memory estimates of them.

A Llama with random weights goes through the real scripts, each in a process that is forked from one with the
libraries. What the same job takes with a model of almost no size is subtracted from both. So the table
compares weights, gradients, moments, activations, logits and caches. Rows are all as long as the longest.

    python -m measurements.memory
    python -m measurements.memory --only kto ppo --hidden-size 512 --layers 8
"""

import importlib
import json
import os
import random
import sys
import tempfile
import traceback
from pathlib import Path

import yaml

from measurements.pairs import largest_memory, start_counting
from prefline import files
from prefline.config import section
from prefline.data import tables
from prefline.machine.memory import inference, sizes
from prefline.machine.memory.training import Training, parts
from prefline.provenance import manifest

LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
NF4 = LORA | {"quantization": "nf4", "merge_into": "quantized"}
OWN = {"weight": 1.0, "normalize": "none"}
LENGTH = {"kind": "function", "function": "prefline/rewards/functions.py:length", "arguments": {}, **OWN}
ONLINE = ("rloo", "grpo", "ppo")
# Name: method, and what differs from the defaults.
TRAININGS = {
    "preference": ("preference", {}),
    "preference, checkpointing": ("preference", {"gradient_checkpointing": True}),
    "preference, bfloat16": ("preference", {"dtype": "bfloat16"}),
    "preference, bfloat16, LoRA": ("preference", {"dtype": "bfloat16", "peft": LORA}),
    "preference, bfloat16, LoRA, dropout": (
        "preference",
        {"dtype": "bfloat16", "peft": LORA | {"lora_dropout": 0.05}},
    ),
    "preference, bfloat16, LoRA, checkpointing": (
        "preference",
        {"dtype": "bfloat16", "peft": LORA, "gradient_checkpointing": True},
    ),
    "preference, LoRA": ("preference", {"peft": LORA}),
    "preference, bfloat16, QLoRA": ("preference", {"dtype": "bfloat16", "peft": NF4}),
    "preference, 8-bit AdamW": ("preference", {"optim": "adamw_8bit"}),
    "sft": ("sft", {}),
    "sft, bfloat16": ("sft", {"dtype": "bfloat16"}),
    "sft, bfloat16, LoRA": ("sft", {"dtype": "bfloat16", "peft": LORA}),
    "pretrain": ("pretrain", {}),
    "pretrain, bfloat16": ("pretrain", {"dtype": "bfloat16"}),
    "reward_model": ("reward_model", {}),
    "reward_model, bfloat16, LoRA": ("reward_model", {"dtype": "bfloat16", "peft": LORA}),
    "kto": ("kto", {}),
    "kto, bfloat16, LoRA": ("kto", {"dtype": "bfloat16", "peft": LORA}),
    "rloo": ("rloo", {}),
    "grpo, bfloat16, LoRA": ("grpo", {"dtype": "bfloat16", "peft": LORA}),
    "ppo": ("ppo", {}),
}
OTHERS = ("log-probabilities", "log-probabilities, bfloat16", "decoding", "decoding, bfloat16")
LIBRARIES = ("bitsandbytes", "datasets", "transformers.models.llama.modeling_llama", "trl.experimental.ppo")
LIBRARIES += ("trl.trainer.kto_trainer", "trl.trainer.reward_trainer", "trl.trainer.sft_trainer")
LIBRARIES += ("prefline.engines.transformers", "prefline.training.loop")
LIBRARIES += ("prefline.training.preference_trainer",)
# Memory that is freed goes back to the system at once, as on a GPU to the allocator.
ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
SCRIPTS = {
    **{"pretrain": "models.pretrain", "sft": "models.train_sft", "reward_model": "models.train_reward_model"},
    **{"preference": "train.train_policy", "kto": "train.train_kto"},
    **dict.fromkeys(ONLINE, "train.train_online"),
}


def make(directory, args, small):
    """A model, pairs with log-probabilities, texts and prompts in `directory`, all of one length."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained("data/policy", trust_remote_code=False)
    shape = {
        "hidden_size": 16 if small else args.hidden_size,
        "intermediate_size": 16 if small else 3 * args.hidden_size,
        "num_hidden_layers": 1 if small else args.layers,
        "num_attention_heads": 2 if small else args.hidden_size // 64,
        "num_key_value_heads": 1 if small else args.hidden_size // 128,
        "vocab_size": len(tokenizer) if small else args.vocabulary,
    }
    torch.manual_seed(1)
    special = {"bos_token_id": 0, "eos_token_id": [4, 1], "pad_token_id": 2}
    config = LlamaConfig(**shape, **special, max_position_embeddings=4096, tie_word_embeddings=False)
    model = LlamaForCausalLM(config).bfloat16()  # as models are published
    model.save_pretrained(directory / "sft")
    tokenizer.save_pretrained(directory / "sft")
    files.write_json(directory / "sft/generation_config.json", {"eos_token_id": [4, 1]})
    manifest.write(directory / "sft.json", directory / "sft", "train_sft", {}, [])
    draw = random.Random(1)

    def ids(number):
        return [draw.randrange(10, len(tokenizer)) for _ in range(number)]

    rows = []
    for number in range(2 * args.global_batch_size + 1):
        split = "train" if number < 2 * args.global_batch_size else "test"
        pair = {"prompt_ids": ids(args.prompt), "chosen_ids": ids(args.completion)}
        pair |= {"rejected_ids": ids(args.completion), "chosen_reward": 1.0, "rejected_reward": 0.0}
        rows.append({"prompt_id": f"p{number}", "split": split, **pair})
    tables.write(directory / "tokenized.parquet", rows, tables.TOKENIZED)
    texts(directory, args, tokenizer, rows)
    return model


def texts(directory, args, tokenizer, rows):
    """Data of trainings that tokenize: dialogues as long as the pairs, and prompts for those that sample."""
    words = json.loads(Path("data/world/sft_train.jsonl").read_text(encoding="utf-8").splitlines()[0])
    word = words["messages"][0]["content"] + " "
    per_word = len(tokenizer(word * 9, add_special_tokens=False)["input_ids"]) / 9

    def text(tokens):
        return (word * max(1, round(tokens / per_word))).strip()

    for split, number in (("train", 2 * args.global_batch_size), ("test", 1)):
        said = [(f"{row} {text(args.prompt)}", text(args.completion - 8)) for row in range(number)]
        prompts = [[{"role": "user", "content": prompt}] for prompt, _ in said]
        dialogues = [
            {
                "messages": [*prompt, {"role": "assistant", "content": answer}],
                "prompt": prompt,
                "chosen": answer,
                "rejected": f"No. {answer}",
                "text": f"{prompt[0]['content']} {answer}" * 2,
            }
            for prompt, (_, answer) in zip(prompts, said, strict=True)
        ]
        files.write_jsonl(directory / f"{split}.jsonl", dialogues)
        made = [
            {
                "prompt_id": f"{split}{row}",
                "messages": prompt,
                "reference": "1",
                "prompt_ids": pair["prompt_ids"],
            }
            for row, (prompt, pair) in enumerate(zip(prompts, rows, strict=False))
        ]
        tables.write(directory / f"{split}-00000.parquet", made, tables.PROMPTS)


def flags(directory, name, args):
    """The words of the command line of the training called `name`."""
    method, changed = TRAININGS[name]
    config = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))
    values = config["training_defaults"] | {"seed": 1, "num_train_epochs": 1, "save_steps": 1000}
    values |= {"global_batch_size": args.global_batch_size, "per_device_train_batch_size": args.rows}
    values |= {"gradient_checkpointing": False, "wandb_project": "", "model": directory / "sft"}
    out = directory / name.replace(" ", "_")  # what another has trained would be found
    values |= {"work_dir": out / "work", "out": out / "model", "manifest": out / "model.json"}
    values |= {"metrics": out / "metrics.json", "log_csv": out / "log.csv"}
    data = {"train_data": directory / "train.jsonl", "eval_data": directory / "test.jsonl", **config["data"]}
    longest = args.prompt + args.completion
    if method == "preference":
        values |= {"tokenized": directory / "tokenized.parquet", "ref_logps": directory / "ref.parquet"}
        values |= {"reference": directory / "sft.json", "scale_by": [], "temperature": 1.0}
        values |= {"loss_type": "sigmoid", "beta": 0.1, "label_smoothing": 0.0}
    elif method == "kto":
        values |= {"tokenized": directory / "tokenized.parquet", "reference": directory / "sft"}
        values |= {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}
        values["per_device_train_batch_size"] = args.global_batch_size
    elif method in ONLINE:
        from prefline.training import methods

        known = config["online"] | {"beta": 0.1}
        values |= {key: known[key] for key in methods.HYPERPARAMETERS[method]}
        values |= {
            "method": method,
            "prompts": directory,
            "shards": {"train": 1, "test": 1},
        }
        values |= {"reference": directory / "sft", "rewards": {"length": LENGTH}, "reward_models": []}
        values |= {"endpoints": {}, "judge_batch_size": 8, "batch_tokens": 2048, "journal": out / "journal"}
        values |= {"length_penalty": 0.0, "temperature": 1.0, "max_grad_norm": 0}
        values |= {"missing_eos_penalty": 0.0, "max_completion_length": args.completion}
        if method == "ppo":
            values["per_device_train_batch_size"] = args.global_batch_size
    elif method == "reward_model":
        columns = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
        values |= data | {"columns": columns, "max_length": 2 * longest}
    elif method == "sft":
        columns = {"messages": "messages", "text": None}
        values |= data | {"columns": columns, "max_length": 2 * longest}
    else:
        values |= data | {"columns": {"text": "text"}, "max_length": longest}
    words = []
    for key, value in (values | changed).items():
        listed = value if isinstance(value, list) else [value]
        said = [str(each) if isinstance(each, (str, Path)) else json.dumps(each) for each in listed]
        words += [f"--{key.replace('_', '-')}", *said]
    return words


def reference(directory, args):
    """The words of compute_ref_logps."""
    values = {"tokenized": directory / "tokenized.parquet", "model": directory / "sft", "part": "0000"}
    values |= {"num_shards": 1, "temperature": 1.0, "batch_tokens": 2048, "dtype": args.reference_dtype}
    values |= {"attn_implementation": "sdpa", "journal": directory / args.reference_dtype / "journal"}
    values |= {"out": directory / "ref.parquet"}
    return [word for key, value in values.items() for word in (f"--{key.replace('_', '-')}", str(value))]


def decode(directory, args):
    """The engine transformers on its own; each prompt is another."""
    from prefline import engines

    rows = tables.read_rows(directory / "tokenized.parquet", tables.TOKENIZED)
    prompts = [row["prompt_ids"] for row in rows][: args.global_batch_size]
    engine = engines.load("transformers", directory / "sft", args.global_batch_size, args.reference_dtype)
    requests = [engines.Request(prompt, seed) for seed, prompt in enumerate(prompts)]
    engine.generate(requests, engines.Sampling(1.0, 1.0, 0, args.completion))


def peak(args, name, directory):
    """The most memory (bytes) of a job beyond the libraries, in a process that is forked for it."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            status = 1
            try:
                for stream in (1, 2):
                    os.dup2(said.fileno(), stream)
                before = start_counting()
                work(args, name, directory)
                print(f"PEAK {largest_memory() - before}", flush=True)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        text = said.read().decode()
    if status:
        sys.exit(f"{name}: {text[-9000:]}")
    return float(text.rsplit("PEAK ", 1)[1].split()[0]) * 2**20


def estimate(name, model, args):
    """The bytes (float) that are estimated of a job, without what is the same for any model."""
    if name in TRAININGS:
        method, changed = TRAININGS[name]
        lengths = {"prompt_tokens": args.prompt, "completion_tokens": args.completion}
        rows = args.global_batch_size if method in ("kto", "ppo") else args.rows
        shape = {"dtype": "float32", "global_batch_size": args.global_batch_size, "rows": rows}
        beside = model if method in ("kto", *ONLINE) else None
        job = Training(model, method, **{**shape, **lengths, **changed}, reference=beside, gpu=False)
        return sum(parts(job).values())
    dtype = "bfloat16" if "bfloat16" in name else "float32"
    if "decoding" in name:
        tokens = args.prompt + args.completion
        held = inference.generation(model, dtype, args.global_batch_size, tokens, args.prompt)
        return inference.of_cpu(held)
    longest = args.prompt + 2 * args.completion
    return inference.of_cpu(inference.scoring(model, dtype, inference.CPU_BATCH_TOKENS, longest, chunk=256))


def main():
    parser = section.parser(__doc__)
    parser.add_argument("--only", nargs="+", help="names, or their beginnings")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--prompt", type=int, default=100, help="tokens")
    parser.add_argument("--completion", type=int, default=200, help="tokens")
    parser.add_argument("--rows", type=int, default=2, help="rows in memory at once")
    parser.add_argument("--global-batch-size", type=int, default=4)
    args = parser.parse_args()
    if ALLOCATION.items() - os.environ.items():
        os.execve(sys.executable, [*sys.orig_argv], os.environ | ALLOCATION)
    load_libraries()
    wanted = [
        name
        for name in (*TRAININGS, *OTHERS)
        if not args.only or any(name.startswith(each) for each in args.only)
    ]
    print(f"{'job':44} {'measured':>10} {'estimated':>10} {'ratio':>7}   MB beyond libraries")
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder, size) for size in ("model", "nothing")]
        for directory in folders:
            peak(args, "make", directory)
        models = [sizes.of(directory / "sft") for directory in folders]
        for name in wanted:
            measured, nothing = (peak(args, name, directory) for directory in folders)
            found, least = (estimate(name, model, args) for model in models)
            ratio = (found - least) / (measured - nothing)
            print(
                f"{name:44} {(measured - nothing) / 1e6:10.0f} {(found - least) / 1e6:10.0f} {ratio:7.2f}",
                flush=True,
            )


def load_libraries():
    """Import what the scripts import, before processes are forked."""
    from prefline.training import online_trainers  # noqa: F401, before TRL's own

    for name in LIBRARIES:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork


def work(args, name, directory):
    """What a process does of which the memory is measured."""
    args.reference_dtype = "bfloat16" if "bfloat16" in name else "float32"
    if name == "make":
        from scripts.logps import compute_ref_logps

        directory.mkdir()
        make(directory, args, small=directory.name == "nothing")
        args.reference_dtype = "float32"
        compute_ref_logps.main(reference(directory, args))
    elif name.startswith("log-probabilities"):
        from scripts.logps import compute_ref_logps

        compute_ref_logps.main(reference(directory, args))
    elif name.startswith("decoding"):
        decode(directory, args)
    else:
        module = importlib.import_module(f"scripts.{SCRIPTS[TRAININGS[name][0]]}")
        module.main(flags(directory, name, args))


if __name__ == "__main__":
    main()

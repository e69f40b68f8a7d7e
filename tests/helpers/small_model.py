"""Small Llamas with random weights, their byte-level tokenizer, and the flags and results of a training."""

import csv
import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from project_copy import PRETENDED_GPUS

from prefline import files
from prefline.provenance import imports

# In no lock: only a source distribution, which builds against the torch that is there.
ZERO3 = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs `pip install deepspeed`"
)

# That no machine has, so both processes stay on the CPU.
TWO_DEVICES = "1000,1001"

SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Has no {% generation %} marks.
TEMPLATE = "{{ bos_token }}" + CHATML
TRAINING = {
    "learning_rate": 1e-2,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "num_train_epochs": 1,
    "global_batch_size": 4,
    "per_device_train_batch_size": 4,
    "weight_decay": 0.01,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-8,
    "optim": "adamw_torch_fused",
    "max_grad_norm": 1.0,
    "dtype": "float32",
    "attn_implementation": "sdpa",
    "gradient_checkpointing": False,
    "save_steps": 100,
    "wandb_project": "",
    "eval_steps": None,
    "checkpoint": "last",
    "early_stopping_patience": None,
    "router_aux_loss_coef": 1e-3,
    "peft": None,
    "seed": 1,
}
# The config's `data`, which trainings with data of their own are told.
DATA = {"special_tokens": "drop", "max_dropped": 0.2}
# The flags of an engine: keys of the config's `generate`, and those of engines.pace.
ENGINE = {
    "engine": "transformers",
    "dtype": "float32",
    "seed-per": "completion",
    "vllm": "{}",
    "served-model": "null",
    "endpoint": "null",
    "batch-size": 8,
    "tensor-parallel-size": 1,
    "gpu-memory-percent": 90,
    "max-num-batched-tokens": 0,
}
LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": "all-linear"}
QLORA = LORA | {"quantization": "nf4"}


def make_tokenizer(template=TEMPLATE, add_bos=False, merged=(), blank=False, **tokens):
    """Ids 0–4 are SPECIAL; add_bos: whether the tokenizer itself puts a BOS before plain text.

    merged: pairs of characters that are one token; blank: whether it puts a blank before a text, and before
    the first word behind a special token, as Llama 2's.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    if merged:
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if blank:
        bpe.normalizer = normalizers.Prepend(" ")
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        ["the cat sat on the mat"] * 10 + list(merged) * 99,
        trainers.BpeTrainer(
            vocab_size=270, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        ),
    )
    if add_bos:
        bpe.post_processor = processors.TemplateProcessing(
            single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
        )
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"} | tokens
    return PreTrainedTokenizerFast(tokenizer_object=bpe, chat_template=template, **names)


def make_model(path, tokenizer=None, architecture="LlamaForCausalLM", ends=(4, 1), weights=True, **config):
    """Save a model and its tokenizer to the directory `path`, and return it; ends: ids of its end tokens."""
    import torch
    import transformers

    tokenizer = tokenizer or make_tokenizer()
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.4,
        "bos_token_id": 0,
        "eos_token_id": list(ends),
    }
    model_class = getattr(transformers, architecture)
    made = model_class.config_class(**shape | config)
    if weights:
        torch.manual_seed(0)
        made = model_class(made)
    made.save_pretrained(path)
    tokenizer.save_pretrained(path)
    # As some published models have it: transformers reads it, but refuses to save it (length_penalty).
    generation = {"do_sample": True, "temperature": 0.3, "repetition_penalty": 5.0, "length_penalty": 2.0}
    files.write_json(Path(path) / "generation_config.json", {"eos_token_id": list(ends), **generation})
    return path


def make_texts(world, documents):
    """A start model in `world` (Path) whose dropout makes random numbers count, and texts to pretrain it.

    documents: how many train; 6 more are held out.
    """
    make_model(world / "start", attention_dropout=0.1, initializer_range=0.02)
    draw = random.Random(1)
    for split, number in (("train", documents), ("test", 6)):
        texts = [" ".join(draw.choices(["ab", "ba", "abba", "b"], k=30)) for _ in range(number)]
        files.write_jsonl(world / f"{split}.jsonl", [{"text": text} for text in texts])
    return world


def text_flags(world, out, **changed):
    """The flags of a pretraining in what make_texts made, with output files in `out`."""
    values = {
        "model": world / "start",
        "train_data": world / "train.jsonl",
        "eval_data": world / "test.jsonl",
        "columns": {"text": "text"},
    }
    return flags(out, **values | changed)


def flags(out, **values):
    """The words of a training's command line; a list is several words, any other value is JSON."""
    paths = {
        "work_dir": out / "work",
        "out": out / "model",
        "manifest": out / "model.json",
        "metrics": out / "metrics.json",
        "log_csv": out / "log.csv",
    }
    words, data = [], DATA if "train_data" in values else {}
    for key, value in (paths | TRAINING | data | values).items():
        parts = value if isinstance(value, list) else [value]
        texts = [str(part) if isinstance(part, (str, Path)) else json.dumps(part) for part in parts]
        words += [f"--{key.replace('_', '-')}", *texts]
    return words


def launch(script, flags, devices=TWO_DEVICES, parallel="ddp", before=()):
    """The running process of a training (its script's name) with those devices, which share the work.

    before: words of Python's that are to start it.
    """
    module = imports.script(script).removesuffix(".py").replace("/", ".")
    return subprocess.Popen(
        [sys.executable, *before, "-m", "prefline.machine.launch", parallel, module, *flags],
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": devices,
            "PYTHONPATH": PRETENDED_GPUS,
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said_by(process):
    """What a process says until it ends, which it must do well."""
    said = process.communicate()[0]
    assert process.returncode == 0, said[-3000:]
    return said


def merge(out, start, into="original"):
    """Merge the adapters that a training with `flags(out)` made of the model `start`; return the metrics."""
    from scripts.models import merge_adapter

    paths = {
        "adapter": out / "model",
        "model": start,
        "merge_into": into,
        "work_dir": out / "work",
        "out": out / "merged",
        "manifest": out / "merged.json",
    }
    merge_adapter.main(
        [word for key, value in paths.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    )
    return files.read_json(out / "merged/merge.json")


def results(out):
    """(weights, metrics, rows of log.csv) of a training that wrote to `out`; of adapters, only theirs.

    Rows lack what is empty.
    """
    from safetensors.torch import load_file

    with open(out / "log.csv") as file:
        log = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    (weights,) = (out / "model").glob("*model.safetensors")
    return load_file(weights), files.read_json(out / "metrics.json"), log

"""Prompts and dialogues, and the flags of the scripts that read them."""

import json

from small_model import make_tokenizer

from prefline import files
from prefline.data import ngrams

QUESTION = "Compose an engaging travel blog post about a recent trip to Hawaii."
QUESTIONS = ngrams.of_texts([QUESTION, "Really? Why?"], 5)
SPECIAL = ["<|im_end|>"]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def flags(folder, rows, columns, **values):
    """The words that prepare_prompts and import_preferences take in `folder`, with `rows` in rows.jsonl.

    A start policy's tokenizer and evaluation questions are written there. values: what differs, by flag.
    """
    make_tokenizer().save_pretrained(folder / "sft")
    files.write_jsonl(folder / "question.jsonl", [{"question_id": 1, "turns": [QUESTION, "Really? Why?"]}])
    files.write_jsonl(folder / "rows.jsonl", rows)
    values = {
        "columns": json.dumps(columns),
        "system": "null",
        "tokenizer": folder / "sft",
        "questions": folder / "question.jsonl",
        "test-fraction": 0.25,
        "decontamination-ngram": 5,
        "seed": 1,
        "out": folder / "out.parquet",
        "metrics": folder / "out.json",
        **values,
    }
    return [word for key, value in values.items() for word in (f"--{key}", str(value))]


def preparing(folder, rows, columns, sources=("rows.jsonl",)):
    """The words of prepare_prompts; sources: names of files in `folder`."""
    paths = json.dumps([str(folder / name) for name in sources])
    return flags(folder, rows, columns, **{"source": paths, "max-prompt-length": 60})


def importing(folder, rows, columns, num_pairs=None):
    """The words of import_preferences."""
    number = json.dumps(num_pairs)
    return flags(folder, rows, columns, **{"source": folder / "rows.jsonl", "num-pairs": number})

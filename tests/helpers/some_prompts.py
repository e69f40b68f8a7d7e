"""Prompts and dialogues, and the flags of the scripts that read them."""

import json

from small_model import make_tokenizer

from prefline import files
from prefline.data import ngrams, reading

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
        "special-tokens": "drop",
        "max-dropped": 0.2,
        "out": folder / "out.parquet",
        "metrics": folder / "out.json",
        **values,
    }
    return [word for key, value in values.items() for word in (f"--{key}", str(value))]


def preparing(folder, rows, columns, sources=("rows.jsonl",), **values):
    """The words of prepare_prompts; sources: names of files in `folder`; values: what differs, by flag."""
    paths = json.dumps([str(folder / name) for name in sources])
    return flags(folder, rows, columns, **{"source": paths, "max-prompt-length": 60, **values})


def importing(folder, rows, columns, num_pairs=None, unpaired=False):
    """The words of import_preferences."""
    values = {
        "source": folder / "rows.jsonl",
        "num-pairs": json.dumps(num_pairs),
        "unpaired": json.dumps(unpaired),
    }
    return flags(folder, rows, columns, **values)


def data_of(entrance, rows, columns="auto", special_tokens="drop", **more):
    """A reading.Data whose source has these rows (list of dict), as they are."""
    return Rows(entrance, rows, columns, special_tokens, more)


class Rows(reading.Data):
    """A reading.Data without a file."""

    def __init__(self, entrance, rows, columns, special_tokens, more):
        rules = {"special_tokens": special_tokens, "max_dropped": 0.2}
        super().__init__(entrance, "rows", columns, rules, held, **more)
        self.rows = rows

    def _records(self, number):
        columns = reading.columns_of(self.entrance, "rows", self.columns, self.rows)
        for place, record in enumerate(self.rows):
            yield f"row {place}", reading._fields(record, columns)


def held(text):
    """The texts of SPECIAL that a text holds."""
    return [token for token in SPECIAL if token in text]

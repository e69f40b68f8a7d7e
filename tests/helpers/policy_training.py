"""A small start policy with pairs and their log-probabilities, and trainings from them."""

import random
import secrets

import pyarrow as pa
import small_model

from prefline.data import tables
from prefline.provenance import manifest
from scripts.logps import compute_ref_logps
from scripts.train import train_policy

VOCABULARY = 61
TRAINING = {
    "temperature": 1.0,
    "loss_type": "sigmoid",
    "beta": 0.1,
    "label_smoothing": 0.0,
    "eta": 2.0,
    "reward_scaling": "none",
    "learning_rate": 1e-3,
    "num_train_epochs": 2,
    "global_batch_size": 8,
    "per_device_train_batch_size": 8,
    "save_steps": 2,
}


def example(number, split):
    draw = random.Random(number)

    def ids():
        return [draw.randrange(VOCABULARY) for _ in range(draw.randint(1, 12))]

    return {
        "prompt_id": f"p{number}",
        "split": split,
        "prompt_ids": ids(),
        "chosen_ids": ids(),
        "rejected_ids": ids(),
        "chosen_reward": draw.random() + 1,
        "rejected_reward": draw.random(),
    }


def reference_flags(world, part=0, num_shards=1, **changed):
    flags = {
        "tokenized": world / "tokenized.parquet",
        "model": world / "sft",
        "part": f"{part:04d}",
        "num_shards": num_shards,
        "temperature": 1.0,
        "batch_tokens": 128,
        "dtype": "float32",
        "attn_implementation": "sdpa",
        "journal": world / secrets.token_hex(4),  # nothing is found from an earlier run
        "out": world / f"ref_logps_{part}_{num_shards}.parquet",
    } | changed
    return [word for key, value in flags.items() for word in (f"--{key.replace('_', '-')}", str(value))]


def make_world(world):
    """Write a start policy, 24 pairs (4 for testing) and their log-probabilities in two parts; the folder."""
    small_model.make_model(world / "sft", vocab_size=VOCABULARY, initializer_range=0.2)
    manifest.write(world / "sft.json", world / "sft", "train_sft", {}, [])
    rows = [example(number, "test" if number % 6 == 5 else "train") for number in range(24)]
    tables.write(world / "tokenized.parquet", rows, tables.TOKENIZED)
    for part in range(2):
        compute_ref_logps.main(reference_flags(world, part, 2))
    return world


def training_flags(world, out, **changed):
    data = {
        "model": world / "sft",
        "tokenized": world / "tokenized.parquet",
        "ref_logps": [world / f"ref_logps_{part}_2.parquet" for part in range(2)],
        "reference": world / "sft.json",
        "scale_by": [],
    }
    return small_model.flags(out, **data | TRAINING | changed)


def train(world, out, **changed):
    """(weights, metrics, rows of log.csv) of a training."""
    train_policy.main(training_flags(world, out, **changed))
    return small_model.results(out)


def distance(one, other):
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def pairs_with(**columns):
    """Train pairs p0, p1, … with those columns, one value for each."""
    rows = [example(number, "train") for number in range(len(next(iter(columns.values()))))]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return pa.Table.from_pylist(rows, schema=tables.TOKENIZED)

"""Pairs as training examples, and how a step's are dealt out to batches."""

import itertools

import numpy as np
import pyarrow as pa
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefline.training import logps
from prefline.training.preference_trainer import COLUMNS, SCALARS, Pairs, balanced, collate

SIDES = ("chosen_ids", "rejected_ids")
ids = st.lists(st.integers(0, 60), min_size=1, max_size=30).map(np.array)
pairs = st.fixed_dictionaries(dict.fromkeys(("prompt_ids", *SIDES), ids))


def batches_of(pairs, size):
    """Batches of `size` pairs, whose scalars are their numbers."""
    pairs = [pair | dict.fromkeys(SCALARS, np.float32(number)) for number, pair in enumerate(pairs)]
    return [collate(pairs[start : start + size]) for start in range(0, len(pairs), size)]


@given(st.lists(pairs, min_size=1, max_size=12), st.integers(1, 5))
def test_every_pair_is_dealt_out_once_and_no_batch_has_more(pairs, size):
    before = batches_of(pairs, size)
    after = balanced(before)
    assert len(after) == len(before)
    assert all(1 <= len(batch["layout"]) <= size for batch in after)
    numbers = [[int(number) for number in batch["chosen_reward"]] for batch in after]
    assert sorted(number for members in numbers for number in members) == list(range(len(pairs)))
    for batch, members in zip(after, numbers, strict=True):
        wanted = logps.collate(
            [(pairs[n]["prompt_ids"], [pairs[n][side] for side in SIDES]) for n in members]
        )
        assert all(torch.equal(batch[name], wanted[name]) for name in wanted)
        assert all(batch[name].tolist() == members for name in SCALARS)


def test_the_largest_batch_is_hardly_larger_than_the_mean():
    draw = np.random.default_rng(0)
    lengths = draw.lognormal(5, 1, (32, 3)).astype(int) + 1
    pairs = [
        {name: np.zeros(n, int) for name, n in zip(("prompt_ids", *SIDES), row, strict=True)}
        for row in lengths
    ]
    before = batches_of(pairs, 4)
    largest, drawn = (max(len(batch["input_ids"]) for batch in made) for made in (balanced(before), before))
    assert largest < 1.1 * lengths.sum() / 8 < 1.4 * lengths.sum() / 8 < drawn


@given(st.lists(st.lists(pairs, max_size=4), min_size=1, max_size=4), st.randoms())
def test_examples_are_the_rows_asked_for_in_any_chunks(chunks, draw):
    rows = [pair | {"number": number} for number, pair in enumerate(itertools.chain(*chunks))]
    schema = pa.schema([(name, pa.list_(pa.int32())) for name in ("prompt_ids", *SIDES)])
    table = pa.concat_tables(pa.Table.from_pylist(chunk, schema) for chunk in chunks)
    for name in COLUMNS:
        table = table.append_column(name, pa.array([row["number"] for row in rows], pa.float32()))
    wanted = [number for number in range(len(rows)) if draw.random() < 0.5]
    draw.shuffle(wanted)
    examples = Pairs(table, np.array(wanted, dtype=np.int64)) if wanted else []
    assert len(examples) == len(wanted)
    for example, number in zip(examples, wanted, strict=True):
        assert example["chosen_reward"] == number
        assert example["rejected_tokens"] == len(rows[number]["rejected_ids"])
        for name in ("prompt_ids", *SIDES):
            assert example[name].tolist() == rows[number][name].tolist()

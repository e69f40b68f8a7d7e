"""The script that holds a tournament with a model that compares completions."""

import secrets

import numpy as np
import pytest
from comparing_models import DIALOGUE, QUESTION, save_language_model, save_pairrm

from prefline.data import tables
from prefline.errors import InputError
from prefline.rewards import pairwise
from scripts.rewards import compare_completions


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_language_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def pair_rm(tmp_path_factory):
    return save_pairrm(tmp_path_factory.mktemp("pair_rm"))


SAMPLES = [
    ("p1", 0, "ab"),
    ("p0", 2, "abc"),
    ("p0", 0, "hello"),
    ("p1", 2, None),
    ("p1", 1, "cd"),
    ("p0", 1, "hello"),
]


def write_shard(folder, samples):
    prompts = [
        {"prompt_id": name, "messages": messages, "prompt_ids": [1], "reference": None}
        for name, messages in (("p0", QUESTION), ("p1", DIALOGUE))
    ]
    completions = [
        {
            "prompt_id": name,
            "sample": sample,
            "completion_ids": [4],
            "completion": text or "",
            "finish_reason": "error" if text is None else "stop",
            "seed": 1,
        }
        for name, sample, text in samples
    ]
    folder.mkdir(exist_ok=True)
    tables.write(folder / "prompts.parquet", prompts, tables.PROMPTS)
    tables.write(folder / "completions.parquet", completions, tables.COMPLETIONS)


def run(folder, model, journal, opponents=0):
    compare_completions.main(
        [
            *(
                "--prompts",
                str(folder / "prompts.parquet"),
                "--completions",
                str(folder / "completions.parquet"),
            ),
            *("--model", str(model), "--opponents", str(opponents), "--seed", "1", "--batch-tokens", "700"),
            *("--dtype", "float32", "--journal", str(journal), "--out", str(folder / "rewards.parquet")),
        ]
    )
    return tables.read_rows(folder / "rewards.parquet", tables.REWARDS)


@pytest.mark.parametrize("kind", ["llama", "pair_rm"])
def test_the_script_holds_a_tournament_for_each_prompt(tmp_path, kind, request, monkeypatch):
    path, journal = request.getfixturevalue(kind), tmp_path / "journal"
    write_shard(tmp_path, SAMPLES)
    rows = run(tmp_path, path, journal)
    assert [(row["prompt_id"], row["sample"]) for row in rows] == [sample[:2] for sample in SAMPLES]
    model = pairwise.load(path, 1000, "float32")
    ((_, [p0]),) = model.batches([pairwise.Comparison(QUESTION, "abc", "hello", "")])
    ((_, [p1]),) = model.batches([pairwise.Comparison(DIALOGUE, "ab", "cd", "")])
    expected = {
        ("p0", 0): [0.5, 0.5, 1 - p0],
        ("p0", 1): [0.5, 0.5, 1 - p0],
        ("p0", 2): [p0, p0, 0.5],
        ("p1", 0): [0.5, p1, None],
        ("p1", 1): [1 - p1, 0.5, None],
    }
    for row in rows:
        parts = expected.get((row["prompt_id"], row["sample"]))
        if parts is None:
            assert row["reward"] is row["parts"] is None
            continue
        assert [part is None for part in row["parts"]] == [part is None for part in parts]
        known = [part for part in parts if part is not None]
        assert [part for part in row["parts"] if part is not None] == pytest.approx(known, abs=1e-5)
        assert row["reward"] == pytest.approx(np.mean(known), abs=1e-5)

    # Nothing is left to compare, whatever the order of the rows and the number of opponents.
    first = {(row["prompt_id"], row["sample"]): row["reward"] for row in rows}
    monkeypatch.setattr(pairwise, "load", lambda *_: pytest.fail("a model was loaded"))
    write_shard(tmp_path / "again", SAMPLES[::-1])
    again = run(tmp_path / "again", path, journal, opponents=1)
    assert {(row["prompt_id"], row["sample"]): row["reward"] for row in again} == first


def test_a_sampled_tournament_leaves_out_what_was_not_held(tmp_path, llama):
    samples = [("p0", sample, "x" * (sample + 1)) for sample in range(6)]
    write_shard(tmp_path, samples)
    rows = run(tmp_path, llama, tmp_path / secrets.token_hex(4), opponents=3)
    for row in rows:
        held = [part for part in row["parts"] if part is not None]
        assert len(held) == 4, "itself and three others"
        assert row["parts"][row["sample"]] == 0.5
        others = (sum(held) - 0.5) / 3
        assert row["reward"] == pytest.approx((0.5 + 5 * others) / 6, abs=1e-6)
    lines = [line for path in tmp_path.rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(lines) == 9


def test_a_comparison_too_long_names_both_samples(tmp_path, llama):
    write_shard(tmp_path, [("p0", 0, "short"), ("p0", 1, "x" * 800)])
    with pytest.raises(
        InputError, match=r"completions\.parquet: prompt_id p0, sample 0, beside sample 1: has"
    ):
        run(tmp_path, llama, tmp_path / "journal")
    assert not (tmp_path / "rewards.parquet").exists()

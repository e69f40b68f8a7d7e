"""Pairs from scored completions: the right ones, whatever the order, with every drop counted."""

import json
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scored_shards import write_shard

from prefline import files
from prefline.config import schema
from prefline.data import prompts, tables
from prefline.errors import InputError
from prefline.rewards import combine, rank_metrics
from scripts.rank import build_preferences as build
from scripts.rank.build_preferences import Candidate, pair

STRATEGIES = st.sampled_from(schema.at("rank.strategy")["enum"])
TRUNCATED = st.sampled_from(schema.at("rank.truncated")["enum"])
FLOATS = st.floats(-100, 100, width=32)


@st.composite
def found(draw, rewards=FLOATS):
    """Candidates of a prompt, ties and equal texts among them."""
    rows = draw(
        st.lists(st.tuples(st.sampled_from("abcdefgh"), rewards, st.booleans()), min_size=0, max_size=7)
    )
    return [Candidate(sample, *row) for sample, row in enumerate(rows)]


def simple(*rewards, truncated=()):
    return [
        Candidate(sample, f"text {sample}", reward, sample in truncated)
        for sample, reward in enumerate(rewards)
    ]


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def samples(outcome):
    return outcome if isinstance(outcome, str) else tuple(candidate.sample for candidate in outcome)


def test_the_strategies():
    rewards = simple(0.5, 3.0, -1.0, 2.0)
    assert samples(pair(rewards, "max_min", 0.0, "keep", 1, "p")) == (1, 2)
    assert samples(pair(rewards, "max_second", 0.0, "keep", 1, "p")) == (1, 3)
    random_others = {samples(pair(rewards, "max_random", 0.0, "keep", seed, "p")) for seed in range(40)}
    assert random_others == {(1, 0), (1, 2), (1, 3)}
    random_pairs = {samples(pair(rewards, "random", 0.0, "keep", seed, "p")) for seed in range(100)}
    assert random_pairs == {(1, 0), (1, 2), (1, 3), (3, 0), (3, 2), (0, 2)}


def test_random_choices_are_even_over_prompts():
    chosen = [
        samples(pair(simple(0.5, 3.0, -1.0, 2.0), "max_random", 0.0, "keep", 1, str(p)))[1]
        for p in range(900)
    ]
    assert all(250 < chosen.count(sample) < 350 for sample in (0, 2, 3))


@pytest.mark.parametrize("truncated", [(), (0, 2, 3)])
def test_ties_do_not_favour_a_sample(truncated):
    tied = simple(1.0, 1.0, 1.0, 1.0, 0.0, truncated=truncated)
    best = [samples(pair(tied, "max_min", 0.0, "keep", 1, str(prompt)))[0] for prompt in range(800)]
    assert all(150 < best.count(sample) < 250 for sample in range(4))


def test_the_truncated_policy():
    rewards = simple(3.0, 2.0, 1.0, 0.0, truncated=(0, 3))
    assert samples(pair(rewards, "max_min", 0.0, "keep", 1, "p")) == (0, 3)
    assert samples(pair(rewards, "max_min", 0.0, "keep_as_rejected", 1, "p")) == (1, 3)
    assert samples(pair(rewards, "max_second", 0.0, "keep_as_rejected", 1, "p")) == (1, 2)
    assert samples(pair(rewards, "max_min", 0.0, "drop", 1, "p")) == (1, 2)
    assert pair(simple(3.0, 2.0, truncated=(0,)), "max_min", 0.0, "drop", 1, "p") == "too_few"
    assert pair(simple(3.0, 2.0, truncated=(0, 1)), "max_min", 0.0, "keep_as_rejected", 1, "p") == "too_few"
    assert (
        pair(simple(3.0, 2.0, truncated=(0,)), "max_min", 0.0, "keep_as_rejected", 1, "p") == "truncated_best"
    )
    assert pair(simple(3.0), "max_min", 0.0, "keep", 1, "p") == "too_few"


def test_equal_texts_count_once():
    same = [Candidate(sample, "same", float(sample), False) for sample in range(3)]
    assert pair(same, "max_min", 0.0, "keep", 1, "p") == "identical_text"
    twice = [
        Candidate(0, "best", 2.0, False),
        Candidate(1, "best", 2.0, False),
        Candidate(2, "next", 1.0, False),
    ]
    chosen, rejected = pair(twice, "max_second", 0.0, "keep", 1, "p")
    assert (chosen.text, rejected.text) == ("best", "next")
    halves = [Candidate(0, "a", 1.0, True), Candidate(1, "a", 1.0, False), Candidate(2, "b", 0.0, False)]
    for prompt in range(20):
        assert samples(pair(halves, "max_min", 0.0, "keep_as_rejected", 1, str(prompt))) == (1, 2)


def test_a_pair_at_the_margin_is_dropped():
    assert pair(simple(1.5, 1.0), "max_min", 0.5, "keep", 1, "p") == "margin"
    assert samples(pair(simple(1.5, 1.0), "max_min", 0.4999, "keep", 1, "p")) == (0, 1)
    assert pair(simple(1.0, 1.0), "max_min", 0.0, "keep", 1, "p") == "margin"


def test_the_penalty_is_taken_off_per_token():
    rows = [
        {"sample": 0, "completion": "a", "completion_ids": [1] * 10, "finish_reason": "stop"},
        {"sample": 1, "completion": "b", "completion_ids": [1] * 2, "finish_reason": "length"},
    ]
    assert build.candidates(rows, {0: 1.0, 1: 0.5}, 0.125) == [
        Candidate(0, "a", -0.25, False),
        Candidate(1, "b", 0.25, True),
    ]


def test_a_difference_that_float32_cannot_hold_is_none():
    rows = [
        {"sample": n, "completion": text, "completion_ids": [1] * (n + 1), "finish_reason": "stop"}
        for n, text in enumerate("ab")
    ]
    assert pair(build.candidates(rows, {0: 1.0, 1: 1.0}, 1e-9), "max_min", 0.0, "keep", 1, "p") == "margin"


@given(found(), STRATEGIES, TRUNCATED, st.floats(0, 5), st.integers(0, 2**32))
def test_what_is_kept_is_a_good_pair(rows, strategy, truncated, min_margin, seed):
    outcome = pair(rows, strategy, min_margin, truncated, seed, "p")
    if isinstance(outcome, str):
        assert outcome in build.REASONS
        return
    chosen, rejected = outcome
    assert chosen.reward - rejected.reward > min_margin
    assert chosen.text != rejected.text
    assert chosen in rows and rejected in rows
    if truncated != "keep":
        assert not chosen.truncated
    if truncated == "drop":
        assert not rejected.truncated


@given(
    found(rewards=st.sampled_from([0.0, 1.0, 2.0])), STRATEGIES, TRUNCATED, st.integers(0, 9), st.randoms()
)
def test_the_order_of_the_samples_means_nothing(rows, strategy, truncated, seed, random):
    shuffled = random.sample(rows, len(rows))
    arguments = (strategy, 0.0, truncated, seed, "p")
    assert pair(rows, *arguments) == pair(shuffled, *arguments)


@given(st.lists(FLOATS, min_size=2, max_size=6, unique=True))
def test_max_min_has_the_widest_gap(rewards):
    rows = simple(*rewards)
    assume(max(rewards) - min(rewards) > 0)
    chosen, rejected = pair(rows, "max_min", 0.0, "keep", 1, "p")
    assert (chosen.reward, rejected.reward) == (max(rewards), min(rewards))


# Whole shards, as the script reads them.


WEIGHTING = {"rm": {"kind": "classifier", "weight": 1.0, "normalize": "none"}}


def build_pairs(folder, *shards, **changes):
    given_flags = {
        "weighting": json.dumps(WEIGHTING),
        "num_completions": 3,
        "strategy": "max_min",
        "length_penalty": 0.0,
        "min_margin": 0.0,
        "truncated": "drop",
        "seed": 1,
        "ranked": folder / "ranked.parquet",
        "out": folder / "preferences.parquet",
        "metrics": folder / "preferences.json",
        **changes,
    }
    flags = [
        word for key, value in given_flags.items() for word in (f"--{key.replace('_', '-')}", str(value))
    ]
    numbers = Counter(shard.split("-")[0] for shard in shards)
    assert list(shards) == prompts.shards(numbers)
    build.main([*flags, "--samples", str(folder), "--shards", json.dumps({"test": 0, "train": 0, **numbers})])
    rows = tables.read_rows(folder / "preferences.parquet", tables.PREFERENCES)
    return rows, files.read_json(folder / "preferences.json")


def test_all_shards_become_one_file_with_its_metrics(tmp_path):
    write_shard(tmp_path, "test-00000", {"t": [0.0, 1.0, 2.0]})
    write_shard(tmp_path, "train-00000", {"a": [3.0, 1.0, 2.0], "b": [1.0, 1.0, 1.0]})
    write_shard(tmp_path, "train-00001", {"c": [0.0, 5.0, -5.0]})
    rows, metrics = build_pairs(tmp_path, "test-00000", "train-00000", "train-00001")
    assert [(row["prompt_id"], row["split"]) for row in rows] == [
        ("t", "test"),
        ("a", "train"),
        ("c", "train"),
    ]
    assert rows[1] == {
        "prompt_id": "a",
        "split": "train",
        "messages": [{"role": "user", "content": "a"}],
        "chosen": "answer 0",
        "rejected": "answer 1",
        "chosen_reward": 3.0,
        "rejected_reward": 1.0,
        "chosen_win_probability": pytest.approx((0.5 + sigmoid(1) + sigmoid(2)) / 3),
        "rejected_win_probability": pytest.approx((0.5 + sigmoid(-1) + sigmoid(-2)) / 3),
        "chosen_sample": 0,
        "rejected_sample": 1,
        "prompt_ids": [1, 2],
        "chosen_ids": [5],
        "rejected_ids": [5, 5],
    }
    none = {"too_few": 0, "identical_text": 0, "truncated_best": 0, "margin": 0}
    assert metrics["splits"] == {
        "test": {"prompts": 1, "kept": 1, "dropped": none},
        "train": {"prompts": 3, "kept": 2, "dropped": {**none, "margin": 1}},
    }
    assert metrics["completions"] == {
        "total": 12,
        "unscored": 0,
        "truncated": 0,
        "duplicate_text": 0,
    }
    scores = [0.0, 1.0, 2.0, 3.0, 1.0, 2.0, 1.0, 1.0, 1.0, 0.0, 5.0, -5.0]
    assert metrics["reward"] == pytest.approx(
        {
            "mean": np.mean(scores),
            "std": np.std(scores),
            "min": -5.0,
            "q25": np.quantile(scores, 0.25),
            "median": 1.0,
            "q75": np.quantile(scores, 0.75),
            "max": 5.0,
        }
    )
    assert metrics["tie_rate"] == 0.25
    assert metrics["length_reward_correlation"] == pytest.approx(np.corrcoef([1, 2, 3] * 4, scores)[0, 1])
    lengths = ([3, 1, 2], [1, 2, 3])
    assert metrics["chosen_length"] == pytest.approx(np.mean(lengths[0]))
    assert metrics["rejected_length"] == pytest.approx(np.mean(lengths[1]))
    assert metrics["length_gap"] == pytest.approx(np.mean(lengths[0]) - np.mean(lengths[1]))


def test_the_same_pairs_from_one_shard_or_many_and_the_same_bytes_again(tmp_path):
    rng = np.random.default_rng(0)
    rewards = {f"p{number}": rng.integers(0, 3, 3).astype(float).tolist() for number in range(20)}
    write_shard(tmp_path, "train-00000", rewards)
    together, _ = build_pairs(tmp_path, "train-00000")
    first = (tmp_path / "preferences.parquet").read_bytes()
    build_pairs(tmp_path, "train-00000")
    assert (tmp_path / "preferences.parquet").read_bytes() == first
    names = list(rewards)
    for shard in range(4):
        write_shard(
            tmp_path, f"train-{shard:05d}", {name: rewards[name] for name in names[5 * shard : 5 * shard + 5]}
        )
    apart, _ = build_pairs(tmp_path, *(f"train-{shard:05d}" for shard in range(4)))
    assert together == apart


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=8),
    STRATEGIES,
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.3]),
)
def test_every_prompt_is_kept_or_counted_once(
    tmp_path_factory, rewards, strategy, min_margin, length_penalty
):
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder, "train-00000", {f"p{n}": [float(r) for r in row] for n, row in enumerate(rewards)})
    report = rank_metrics.Report(build.REASONS)
    args = SimpleNamespace(
        num_completions=3,
        strategy=strategy,
        min_margin=min_margin,
        length_penalty=length_penalty,
        truncated="keep",
        seed=1,
    )
    paths = {kind: str(folder / kind / "train-00000.parquet") for kind in ("prompts", "completions")}
    scored = combine.score_shard({"rm": folder / "rewards" / "rm" / "train-00000.parquet"}, WEIGHTING, {})
    made, ranked = build.shard_pairs(paths, "train", scored, args, report)
    pairs = made.to_pylist()
    roles = [row["role"] for row in ranked.to_pylist()]
    assert roles.count("chosen") == roles.count("rejected") == len(pairs)
    assert len(roles) == 3 * len(rewards)
    counts = report.metrics()["splits"]["train"]
    assert counts["prompts"] == len(rewards) == counts["kept"] + sum(counts["dropped"].values())
    assert counts["kept"] == len(pairs)
    assert all(row["chosen_reward"] - row["rejected_reward"] > min_margin for row in pairs)


@pytest.mark.parametrize("kind", ["completions", "rewards/rm"])
def test_a_short_shard_is_named(tmp_path, kind):
    write_shard(tmp_path, "train-00000", {"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0, 3.0]})
    path = tmp_path / kind / "train-00000.parquet"
    schema = {"completions": tables.COMPLETIONS, "rewards/rm": tables.REWARDS}[kind]
    tables.write(path, tables.read(path, schema).slice(0, 5), schema)
    with pytest.raises(
        InputError,
        match=r"completions/train-00000\.parquet: the shard has 5 rows where 2 prompts.*"
        r"first missing: prompt_id b, sample 2\); delete the file",
    ):
        build_pairs(tmp_path, "train-00000")
    assert not (tmp_path / "preferences.parquet").exists()


def test_a_doubled_row_is_as_wrong_as_a_missing_one(tmp_path):
    write_shard(tmp_path, "train-00000", {"a": [1.0, 2.0, 3.0]})
    path = tmp_path / "rewards" / "rm" / "train-00000.parquet"
    rows = tables.read_rows(path, tables.REWARDS)
    tables.write(path, [rows[0], rows[1], rows[1]], tables.REWARDS)
    with pytest.raises(InputError, match="first missing: prompt_id a, sample 2"):
        build_pairs(tmp_path, "train-00000")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_that_is_no_number_is_named(tmp_path, value):
    write_shard(tmp_path, "train-00000", {"a": [1.0, value, 3.0]})
    with pytest.raises(
        InputError, match=r"rewards/rm/train-00000\.parquet: prompt_id a, sample 1 has the reward"
    ):
        build_pairs(tmp_path, "train-00000")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"min_margin": 99}, "'margin': 1"),
        ({"finish_reason": "length"}, "'too_few': 1.*3 of 3 completions truncated"),
        ({"texts": "same"}, "'identical_text': 1"),
    ],
)
def test_no_pair_left_is_an_error_with_the_counts(tmp_path, changes, reason):
    of_shard = {key: changes.pop(key) for key in ("finish_reason", "texts") if key in changes}
    write_shard(tmp_path, "train-00000", {"a": [1.0, 2.0, 3.0]}, **of_shard)
    with pytest.raises(InputError, match=f"no training pair is left of 1 prompts: .*{reason}"):
        build_pairs(tmp_path, "train-00000", **changes)
    assert not (tmp_path / "preferences.json").exists()


def test_a_shard_that_is_not_there_is_named_and_others_are_not_read(tmp_path):
    for shard in range(3):
        write_shard(tmp_path, f"train-{shard:05d}", {f"{shard}": [1.0, 2.0, 3.0]})
    rows, _ = build_pairs(tmp_path, "train-00000", "train-00001")
    assert [row["prompt_id"] for row in rows] == ["0", "1"], "the third is of an earlier config"
    (tmp_path / "rewards/rm/train-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"rewards/rm/train-00001\.parquet: there is no such file"):
        build_pairs(tmp_path, "train-00000", "train-00001")


def test_many_shards_are_pairs_of_few_groups_and_a_short_command(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_IN_GROUP", 10)
    shards = [f"train-{number:05d}" for number in range(25)]
    for number, shard in enumerate(shards):
        write_shard(tmp_path, shard, {f"{number}": [1.0, 2.0, 3.0]})
    rows, _ = build_pairs(tmp_path, *shards)
    assert [row["prompt_id"] for row in rows] == [str(number) for number in range(25)]
    with pq.ParquetFile(tmp_path / "preferences.parquet") as file:
        assert file.num_row_groups == 3

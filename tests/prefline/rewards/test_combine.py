"""Several rewards into one, and win probabilities."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from prefline.data import tables
from prefline.errors import InputError
from prefline.rewards import combine

REWARDS = arrays.arrays(np.float64, st.integers(1, 12), elements=st.floats(-50, 50, width=32))


def alone(weight, normalize, kind="classifier"):
    return {"kind": kind, "weight": weight, "normalize": normalize}


@given(REWARDS, st.data())
def test_normalized_rewards_have_mean_0_and_spread_1_where_they_say(rewards, data):
    prompts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rewards), max_size=len(rewards))))
    training = np.array(data.draw(st.lists(st.booleans(), min_size=len(rewards), max_size=len(rewards))))
    known = rewards[training]
    scale = (known.mean(), known.std()) if len(known) else None
    over_policy = combine.normalized(rewards, "policy", prompts, scale)
    if training.any() and rewards[training].std() > 1e-6:
        assert over_policy[training].mean() == pytest.approx(0, abs=1e-6)
        assert over_policy[training].std() == pytest.approx(1, abs=1e-6)
    over_prompt = combine.normalized(rewards, "prompt", prompts, None)
    for prompt in set(prompts.tolist()):
        rows = prompts == prompt
        if rewards[rows].std() > 1e-6:
            assert over_prompt[rows].mean() == pytest.approx(0, abs=1e-6)
            assert over_prompt[rows].std() == pytest.approx(1, abs=1e-6)
        else:
            assert np.abs(over_prompt[rows]).max() <= 1e4
    assert np.array_equal(combine.normalized(rewards, "none", prompts, None), rewards)


def test_equal_rewards_become_0_and_missing_ones_stay_missing():
    prompts = np.array([0, 0, 1, 1])
    rewards = np.array([2.0, 2.0, np.nan, 5.0])
    np.testing.assert_array_equal(
        combine.normalized(rewards, "prompt", prompts, None), [0.0, 0.0, np.nan, 0.0]
    )
    none_left = np.full(4, np.nan)
    np.testing.assert_array_equal(combine.normalized(none_left, "policy", prompts, None), none_left)


def test_the_weighted_sum():
    rewards = {"b": np.array([1.0, 2.0, np.nan]), "a": np.array([10.0, 30.0, 20.0])}
    weighting = {"a": alone(-1.0, "none"), "b": alone(2.0, "policy")}
    prompts = np.zeros(3, int)
    np.testing.assert_allclose(
        combine.combined(rewards, weighting, prompts, {"b": (1.5, 0.5)}), [-10 - 2, -30 + 2, np.nan]
    )


@given(REWARDS)
def test_win_probabilities_are_bradley_terrys_with_oneself_at_one_half(rewards):
    found = combine.win_probabilities(rewards, np.zeros(len(rewards), int))
    for row, one in enumerate(rewards):
        assert found[row] == pytest.approx(np.mean([1 / (1 + math.exp(other - one)) for other in rewards]))
    assert found.mean() == pytest.approx(0.5)


def write(folder, name, shard, rows):
    path = folder / name / f"{shard}.parquet"
    rows = [{"prompt_id": p, "sample": sample, "reward": reward} for p, sample, reward in rows]
    tables.write(path, rows, tables.REWARDS)
    return path


def test_all_shards_of_all_rewards(tmp_path):
    def paths(shard, **rows):
        return {name: write(tmp_path, name, shard, each) for name, each in rows.items()}

    train = paths("train-00000", rm=[("a", 0, 1.0), ("a", 1, 3.0)], fn=[("a", 0, 0.0), ("a", 1, 1.0)])
    test = paths("test-00000", rm=[("t", 0, 9.0), ("t", 1, None)], fn=[("t", 0, 1.0), ("t", 1, 1.0)])
    weighting = {"rm": alone(1.0, "policy"), "fn": alone(10.0, "none", "function")}
    scales = combine.scales({name: [path] for name, path in train.items()}, weighting)
    assert scales == {"rm": (2.0, 1.0)}
    train, test = (combine.score_shard(paths, weighting, scales) for paths in (train, test))
    assert train.rewards == {"a": {0: -1.0, 1: 11.0}}
    assert test.rewards == {"t": {0: 17.0, 1: None}}, "by the training prompts' mean"
    assert test.wins == {"t": {0: 0.5, 1: None}}
    assert train.wins["a"][1] == pytest.approx((0.5 + 1 / (1 + math.exp(-12))) / 2)


def test_the_scale_is_that_of_all_training_shards_and_none_without_rewards(tmp_path):
    paths = [
        write(tmp_path, "rm", "train-00000", [("a", 0, 1.0), ("a", 1, None)]),
        write(tmp_path, "rm", "train-00001", [("b", 0, 2.0), ("b", 1, 6.0)]),
    ]
    weighting = {"rm": alone(1.0, "policy")}
    assert combine.scales({"rm": paths}, weighting) == {"rm": (3.0, np.std([1.0, 2.0, 6.0]))}
    none = write(tmp_path, "rm", "train-00002", [("a", 0, None)])
    assert combine.scales({"rm": [none]}, weighting) == combine.scales({"rm": []}, weighting) == {"rm": None}
    assert combine.score_shard({"rm": none}, weighting, {"rm": None}).rewards == {"a": {0: None}}


def test_a_pairwise_models_own_win_probabilities_are_taken(tmp_path):
    path = write(tmp_path, "pm", "train-00000", [("a", 0, 0.75), ("a", 1, 0.25)])
    scored = combine.score_shard({"pm": path}, {"pm": alone(100.0, "none", "pairwise")}, {})
    assert scored.wins == {"a": {0: 0.75, 1: 0.25}}
    assert scored.rewards == {"a": {0: 75.0, 1: 25.0}}


def test_rewards_of_other_completions_are_named(tmp_path):
    one = write(tmp_path, "rm", "train-00000", [("a", 0, 1.0), ("a", 1, 3.0)])
    other = write(tmp_path, "fn", "train-00000", [("a", 0, 1.0), ("a", 2, 3.0)])
    with pytest.raises(InputError, match=rf"{one}: scores other completions than {other}"):
        combine.score_shard(
            {"rm": one, "fn": other}, {"rm": alone(1.0, "none"), "fn": alone(1.0, "none")}, {}
        )

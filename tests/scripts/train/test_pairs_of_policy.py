"""Pairs that a training of a policy takes or refuses, and REBEL's rewards in it."""

import math
import re
import statistics

import pytest
from policy_training import (
    make_world,
    pairs_with,
    train,
)

from prefline.data import tables
from prefline.errors import InputError
from scripts.train import train_policy


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


class TestCheckPairs:
    @pytest.mark.parametrize("bad", [None, math.nan, math.inf])
    def test_rebel_needs_rewards(self, bad):
        pairs = pairs_with(rejected_reward=[0.0, 0.0, bad])
        train_policy.check_pairs(pairs, "sigmoid")
        with pytest.raises(
            InputError, match=r"row 2, prompt_id p2: rejected_reward is .*; take loss_type sig"
        ):
            train_policy.check_pairs(pairs, ["sft", "rebel"])

    def test_sppo_needs_win_probabilities(self):
        pairs = pairs_with(chosen_win_probability=[0.9, 0.8], rejected_win_probability=[0.1, None])
        train_policy.check_pairs(pairs, "sppo_hard")
        with pytest.raises(InputError, match=r"p1: rejected_win_probability is .*; take loss_type sppo_hard"):
            train_policy.check_pairs(pairs, "sppo")

    def test_a_pair_of_equal_completions(self):
        ids = [[1, 2], [3, 4], [5, 6, 7]]
        train_policy.check_pairs(pairs_with(chosen_ids=ids, rejected_ids=[[1, 3], [3], [5, 6, 8]]), "sigmoid")
        with pytest.raises(InputError, match="row 2, prompt_id p2: chosen and rejected are the same tokens"):
            train_policy.check_pairs(pairs_with(chosen_ids=ids, rejected_ids=[[2], [4, 4], [5, 6, 7]]), "sft")


class TestRewards:
    def test_rewards_that_are_all_equal(self):
        pairs = pairs_with(chosen_reward=[2.0, 3.0], rejected_reward=[2.0, 3.0])
        for scaling in ("none", "z_score"):
            with pytest.raises(InputError, match=r"each of the 2 train pairs, beginning with prompt_id p0"):
                train_policy.scale_rewards(pairs, scaling, pairs)

    def test_z_score_has_the_train_pairs_mean_and_deviation(self):
        pairs = pairs_with(
            chosen_reward=[4.0, 6.0, 104.0], rejected_reward=[2.0, 0.0, 3.0], split=["train", "train", "test"]
        )
        assert train_policy.scale_rewards(pairs, "none", pairs) is pairs
        scaled = train_policy.scale_rewards(pairs, "z_score", pairs)
        deviation = math.sqrt((1 + 9 + 1 + 9) / 4)
        assert scaled["chosen_reward"].to_pylist() == pytest.approx(
            [(reward - 3) / deviation for reward in (4, 6, 104)]
        )
        assert scaled["rejected_reward"].to_pylist() == pytest.approx(
            [(reward - 3) / deviation for reward in (2, 0, 3)]
        )
        assert scaled.drop(["chosen_reward", "rejected_reward"]) == pairs.drop(
            ["chosen_reward", "rejected_reward"]
        )

    def test_by_run_has_those_of_the_first_iteration(self):
        first = pairs_with(chosen_reward=[4.0, 6.0], rejected_reward=[2.0, 0.0])
        later = pairs_with(chosen_reward=[6.0, 6.5, 7.0], rejected_reward=[5.5, 6.0, 5.0])
        scaled = train_policy.scale_rewards(later, "by_run", first)
        deviation = math.sqrt((1 + 9 + 1 + 9) / 4)
        assert scaled["rejected_reward"].to_pylist() == pytest.approx(
            [(reward - 3) / deviation for reward in (5.5, 6.0, 5.0)]
        )
        own = train_policy.scale_rewards(first, "by_run", first)
        assert own == train_policy.scale_rewards(first, "z_score", later), "of the first both are the same"
        equal = pairs_with(chosen_reward=[2.0], rejected_reward=[2.0])
        with pytest.raises(InputError, match=r"--scale-by: the 2 rewards .* deviation 0.0, by which"):
            train_policy.scale_rewards(later, "by_run", equal)

    def test_scaling_reaches_the_loss(self, world, tmp_path):
        _, metrics, log = train(world, tmp_path, loss_type="rebel_paper", reward_scaling="z_score", eta=1.0)
        rows = tables.read_rows(world / "tokenized.parquet", tables.TOKENIZED)
        rewards = [(row["chosen_reward"], row["rejected_reward"]) for row in rows if row["split"] == "train"]
        deviation = statistics.pstdev(reward for pair in rewards for reward in pair)
        wanted = [((row["chosen_reward"] - row["rejected_reward"]) / deviation) ** 2 for row in rows]
        wanted = [loss for loss, row in zip(wanted, rows, strict=True) if row["split"] == "test"]
        assert metrics["eval_loss_before"] == pytest.approx(sum(wanted) / len(wanted), rel=1e-5)
        assert log[-1]["loss"] < log[0]["loss"]

    @pytest.mark.parametrize(
        ("eta", "said"),
        [
            (1.0, None),
            (
                1e6,
                r"5e\+05 nats apart where rejected has 4 tokens, out of reach: .*; eta 4 would ask for 0.5",
            ),
            (1e-3, "0.0005 nats apart where rejected has 4 tokens, next to nothing: .*; eta 4 would ask"),
        ],
    )
    def test_eta_out_of_reach(self, eta, said):
        pairs = pairs_with(
            chosen_reward=[0.5, 1.5, 9.0], rejected_reward=[0.25, 1.0, 0.0], rejected_ids=[[1] * 4] * 3
        )
        warning = train_policy.reach_warning(pairs, [0, 1, 2], eta)
        assert warning is None if said is None else re.search(said, warning)

    def test_equal_rewards_do_not_hide_the_others(self):
        """As where they say right or wrong, and most pairs' are both the same."""
        pairs = pairs_with(chosen_reward=[1.0, 1.0, 0.0], rejected_reward=[1.0, 0.0, 0.0])
        assert "rewards' median difference 1, where they differ" in train_policy.reach_warning(
            pairs, [0, 1, 2], 1e6
        )
        assert train_policy.reach_warning(pairs, [1, 2], 2.0) is None

    def test_a_training_says_so(self, world, tmp_path, capsys):
        train(world, tmp_path, loss_type="rebel", eta=1e6, num_train_epochs=0.1)
        assert "warning: eta 1e+06 times" in capsys.readouterr().out


def test_a_split_without_pairs(world):
    pairs = tables.read(world / "tokenized.parquet", tables.TOKENIZED)
    with pytest.raises(InputError, match="no validation pairs"):
        train_policy.split_of(pairs, "validation")

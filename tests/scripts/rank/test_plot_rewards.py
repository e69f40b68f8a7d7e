"""The picture of rewards: what it says is true, whatever the rewards are, and nothing overlaps."""

import argparse
import hashlib

import matplotlib
import numpy as np
import pyarrow as pa
import pytest
import texts_in_pictures
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from prefline import files
from prefline.data import tables
from prefline.rewards import combine, rank_metrics
from scripts.rank import build_preferences, plot_rewards

COMPLETIONS = 5


def ranked_samples(folder, rewards, lengths, test=0, min_margin=0.0):
    """(table, metrics) as build_preferences makes them of arrays [prompts, 5]; NaN: no reward.

    test: how many of the prompts are held out.
    """
    report = rank_metrics.Report(build_preferences.REASONS)
    args = argparse.Namespace(
        num_completions=COMPLETIONS, length_penalty=0.0, strategy="max_min", min_margin=min_margin,
        truncated="drop", seed=1,
    )  # fmt: skip
    made, first = [], len(rewards) - test
    for split, rows in {"test": range(first, len(rewards)), "train": range(first)}.items():
        paths = {what: folder / what / f"{split}-00000.parquet" for what in ("prompts", "completions")}
        for path in paths.values():
            path.parent.mkdir(exist_ok=True)
        prompts = [
            {"prompt_id": f"{row:032}", "messages": [{"role": "user", "content": "?"}], "prompt_ids": [1]}
            for row in rows
        ]
        tables.write(paths["prompts"], prompts, tables.PROMPTS)
        completions = [
            {
                "prompt_id": f"{row:032}", "sample": sample,
                "completion_ids": [2] * int(lengths[row][sample]),
                "completion": f"{sample}", "seed": 1,
                "finish_reason": "length" if lengths[row][sample] >= 2000 else "stop",
            }
            for row in rows for sample in range(COMPLETIONS)
        ]  # fmt: skip
        tables.write(paths["completions"], completions, tables.COMPLETIONS)
        found = {
            f"{row:032}": {
                sample: None if np.isnan(reward) else float(np.float32(reward))
                for sample, reward in enumerate(rewards[row])
            }
            for row in rows
        }
        scored = combine.Scored(found, {one: dict.fromkeys(range(COMPLETIONS), 0.5) for one in found})
        made.append(build_preferences.shard_pairs(paths, split, scored, args, report)[1])
    return pa.concat_tables(made), report.metrics()


def draws(prompts, seed=0):
    return np.random.default_rng(seed), (prompts, COMPLETIONS)


def longer_is_better(folder):
    draw, shape = draws(400)
    lengths = draw.lognormal(5.5, 0.8, shape).round()
    return ranked_samples(folder, np.log(lengths) + draw.normal(size=shape), lengths, test=50)


def five_prompts(folder):
    draw, shape = draws(5)
    return ranked_samples(folder, draw.normal(size=shape), draw.integers(1, 40, shape), test=1)


def nearly_all_equal(folder):
    """One pair, of completions of equal length; every other prompt drops out for the margin."""
    rewards = np.full((20, COMPLETIONS), 3.0)
    rewards[0, 1] = 4.0
    return ranked_samples(folder, rewards, np.full((20, COMPLETIONS), 7), test=4)


def heavy_tails(folder):
    draw, shape = draws(600)
    lengths = np.minimum(draw.pareto(0.7, shape) * 20 + 1, 2000).round()
    return ranked_samples(folder, draw.standard_cauchy(shape) * 1e7, lengths, test=100)


def unscored(folder):
    draw, shape = draws(40)
    rewards = np.where(draw.random(shape) < 0.5, np.nan, draw.integers(1, 6, shape))
    return ranked_samples(folder, rewards, draw.integers(0, 300, shape), test=10)


def no_test_pair(folder):
    draw, shape = draws(30)
    rewards = draw.integers(0, 2, shape).astype(float)
    rewards[-8:] = 1.0
    return ranked_samples(folder, rewards, draw.integers(1, 60, shape), test=8)


CASES = (longer_is_better, five_prompts, nearly_all_equal, heavy_tails, unscored, no_test_pair)


@pytest.fixture
def drawn(monkeypatch):
    """draw(figure): the texts that are really drawn, as [(text, box)]; ticks beyond an axis are not."""
    seen, original = [], Text.draw

    def watched(self, renderer):
        if self.get_visible() and self.get_text().strip():
            seen.append((self.get_text(), self.get_window_extent(renderer)))
        original(self, renderer)

    def draw(figure):
        monkeypatch.setattr(Text, "draw", watched)
        FigureCanvasAgg(figure).draw()
        monkeypatch.undo()
        return seen

    return draw


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.parametrize("case", CASES)
def test_no_text_overlaps_another_or_leaves_the_paper(tmp_path, case, drawn):
    figure = plot_rewards.draw("a_run_with_quite_a_long_name-12", *case(tmp_path))
    assert texts_in_pictures.check(figure, drawn(figure)) > 30


def test_the_texts_are_the_numbers(tmp_path):
    ranked, metrics = longer_is_better(tmp_path)
    found = texts(plot_rewards.draw("sft", ranked, metrics))
    rows = ranked.to_pylist()
    lengths, rewards = ([row[name] for row in rows] for name in ("length", "reward"))
    assert f"Reward by length: correlation {np.corrcoef(lengths, rewards)[0, 1]:.2f}" in found
    of = {
        role: {row["prompt_id"]: row["length"] for row in rows if row["role"] == role}
        for role in ("chosen", "rejected")
    }
    gaps = [of["chosen"][one] - of["rejected"][one] for one in of["chosen"]]
    assert f"Chosen is {np.mean(gaps):,.1f} tokens longer on average" in found
    shares = (f"{np.mean([some > 0 for some in gaps]):.0%}", f"{np.mean([some < 0 for some in gaps]):.0%}")
    assert "in {} of the pairs longer, in {} shorter".format(*shares) in found
    assert f"{len(rows):,} completions with a reward, {len(gaps):,} pairs" in found


def test_rows_without_a_reward_and_dropped_prompts_are_counted(tmp_path):
    ranked, metrics = unscored(tmp_path)
    words = {what: numbers for what, *numbers in plot_rewards.counts_in_words(metrics)}
    missing = ranked["reward"].null_count
    assert missing > 0 and words["   unscored"] == ["", str(missing)]
    pairs = dict.fromkeys(("train", "test"), 0)
    for row in ranked.to_pylist():
        pairs[row["split"]] += row["role"] == "chosen"
    assert words["pairs"] == [str(pairs["train"]), str(pairs["test"])]
    dropped = [numbers for what, numbers in words.items() if what.startswith("no pair")]
    for column, (split, kept) in enumerate(pairs.items()):
        assert kept + sum(int(numbers[column]) for numbers in dropped) == metrics["splits"][split]["prompts"]
    assert f"{len(ranked) - missing} completions with a reward, {sum(pairs.values())} pairs" in texts(
        plot_rewards.draw("sft", ranked, metrics)
    )


def test_where_lengths_are_all_alike_no_correlation_is_made_up(tmp_path):
    assert "Reward by length: correlation undefined" in texts(
        plot_rewards.draw("sft", *nearly_all_equal(tmp_path))
    )


def test_equal_numbers_give_equal_bytes(tmp_path):
    ranked, metrics = five_prompts(tmp_path)
    tables.write(tmp_path / "ranked.parquet", ranked, tables.RANKED)
    files.write_json(tmp_path / "preferences.json", metrics)
    digests = []
    for name in ("a.png", "b.png"):
        flags = {"policy": "sft", "ranked": tmp_path / "ranked.parquet", "out": tmp_path / name}
        flags["metrics"] = tmp_path / "preferences.json"
        plot_rewards.main([f"--{flag}={value}" for flag, value in flags.items()])
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    assert matplotlib.__version__.encode() not in (tmp_path / "a.png").read_bytes()


@given(st.lists(st.integers(-3000, 3000), min_size=1, max_size=50))
def test_bars_hold_equally_many_whole_numbers_and_zero_is_a_middle(values):
    edges = plot_rewards.bars(np.array(values))
    low, high = plot_rewards.span(np.array(values))
    assert edges[0] < round(low) and round(high) < edges[-1] and len(edges) <= plot_rewards.BARS + 2
    step = edges[1] - edges[0]
    assert (np.diff(edges) == step).all() and ((edges + step / 2) % step == 0).all()


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50))
def test_an_axis_has_a_width_and_holds_the_middle(values):
    low, high = plot_rewards.span(np.array(values))
    assert low < high and low <= np.median(values) <= high


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(-5, 5)), min_size=1, max_size=200))
def test_groups_hold_every_completion_once_short_ones_first(rows):
    lengths, rewards = (np.array(column, float) for column in zip(*rows, strict=True))
    groups = plot_rewards.by_length(lengths, rewards)
    assert 1 <= len(groups) <= plot_rewards.GROUPS
    means = [group[0] for group in groups]
    assert means == sorted(means) and lengths.min() <= means[0] and means[-1] <= lengths.max()

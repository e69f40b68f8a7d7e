"""Over-optimization: the divergence is that of the samples at their temperature; the picture shows it."""

import itertools
import math
import random

import numpy as np
import pytest
import small_model
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from prefline import files
from prefline.data import tables
from scripts.train import measure_drift, plot_drift

samples = st.lists(
    st.tuples(st.integers(0, 4), st.floats(-9, 9, width=32), st.integers(1, 9)), min_size=1, max_size=40
)


@given(samples)
@settings(max_examples=50)
def test_means_are_over_samples_and_over_tokens(samples):
    names, ratios, tokens = (list(column) for column in zip(*samples, strict=True))
    ratios, tokens = np.array(ratios), np.array(tokens, dtype=float)
    found = measure_drift.divergence([str(name) for name in names], ratios, tokens)
    assert found["nats_per_sequence"] == pytest.approx(ratios.mean(), abs=1e-9)
    assert found["nats_per_token"] == pytest.approx(ratios.sum() / tokens.sum(), abs=1e-9)
    assert found["standard_error_per_sequence"] >= 0


def test_the_standard_error_is_over_prompts():
    """With one sample for each it is the usual one; samples that say the same again make none smaller."""
    ratios = np.array([1.0, 2.0, 4.0, 5.0])
    one = measure_drift.divergence(list("abcd"), ratios, np.ones(4))
    assert one["standard_error_per_sequence"] == pytest.approx(ratios.std(ddof=1) / math.sqrt(4))
    again = measure_drift.divergence(list("abcd") * 5, np.tile(ratios, 5), np.ones(20))
    assert again["standard_error_per_sequence"] == pytest.approx(one["standard_error_per_sequence"])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = tmp_path_factory.mktemp("world")
    small_model.make_model(world / "start", initializer_range=0.2)
    small_model.make_model(world / "policy", initializer_range=0.25)
    draw = random.Random(1)
    prompts = [
        {"prompt_id": f"p{n}", "messages": [], "prompt_ids": [draw.randrange(5, 200) for _ in range(4)]}
        for n in range(6)
    ]
    tables.write(world / "prompts.parquet", prompts, tables.PROMPTS)
    for who in ("policy", "start"):
        rows = [
            {
                "prompt_id": f"p{n}",
                "sample": sample,
                "completion_ids": [draw.randrange(5, 200) for _ in range(2 + n)],
                "completion": "",
                "finish_reason": "length" if n == 0 else "stop",
                "seed": 1,
            }
            for n in range(6)
            for sample in range(2)
        ]
        tables.write(world / f"{who}.parquet", rows, tables.COMPLETIONS)
        scores = [{"prompt_id": row["prompt_id"], "sample": row["sample"], "reward": 0.5} for row in rows]
        tables.write(world / f"{who}/rewards/helpful/test.parquet", scores, tables.REWARDS)
    files.write_json(world / "metrics.json", {"eval_rewards/margins": 2.5, "eval_loss": 0.4})
    return world


def measure(world, out, **changed):
    flags = {
        "model": world / "policy",
        "references": [world / "start", world / "policy"],
        "prompts": world / "prompts.parquet",
        "completions": world / "policy.parquet",
        "start_completions": world / "start.parquet",
        "rewards": world / "policy/rewards/helpful/test.parquet",
        "start_rewards": world / "start/rewards/helpful/test.parquet",
        "metrics": world / "metrics.json",
        "temperature": 0.8,
        "dtype": "float32",
        "attn_implementation": "sdpa",
        "batch_tokens": 64,
        "out": out,
    } | changed
    words = []
    for key, value in flags.items():
        parts = value if isinstance(value, list) else [value]
        words += [f"--{key.replace('_', '-')}", *map(str, parts)]
    measure_drift.main(words)
    return files.read_json(out)


def test_the_divergence_is_that_of_the_two_models(world, tmp_path):
    from transformers import AutoModelForCausalLM

    found = measure(world, tmp_path / "drift.json")
    assert found["kl"]["policy"]["nats_per_sequence"] == pytest.approx(0, abs=1e-5)
    ids = {
        row["prompt_id"]: row["prompt_ids"]
        for row in tables.read_rows(world / "prompts.parquet", tables.PROMPTS)
    }
    rows = tables.read_rows(world / "policy.parquet", tables.COMPLETIONS)
    wanted = []
    for row in rows:
        prompt, completion = ids[row["prompt_id"]], row["completion_ids"]
        sums = []
        for name in ("policy", "start"):
            model = AutoModelForCausalLM.from_pretrained(world / name).eval()
            with torch.no_grad():
                logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1] / 0.8
            sums.append(logits.log_softmax(-1)[range(len(completion)), completion].sum().item())
        wanted.append(sums[0] - sums[1])
    assert found["kl"]["start"]["nats_per_sequence"] == pytest.approx(np.mean(wanted), abs=1e-4)
    assert found["completion_tokens"] == {"policy": 4.5, "start": 4.5}
    assert found["truncated"]["policy"] == pytest.approx(1 / 6)
    assert found["rewards"] == {"helpful": {"policy": 0.5, "start": 0.5}}
    assert found["held_out"] == {"loss": 0.4, "rewards/margins": 2.5, "rewards/accuracies": None}


def test_the_picture_has_every_policy_in_every_panel(tmp_path):
    policies = ["dpo-1", "rebel-1", "rebel-2"]
    drifts, rates = [], {}
    for number, policy in enumerate(policies, 1):
        kl = {"nats_per_sequence": 3.0 * number, "standard_error_per_sequence": 0.4}
        drifts.append(
            {
                "prompts": 64,
                "kl": {"sft": kl},
                "rewards": {"helpful": {"policy": number / 2, "start": 0.1}},
                "completion_tokens": {"policy": 20.0 - number, "start": 25.0},
            }
        )
        rates[policy] = {"overall": {"win_rate_adjusted": 0.5 + number / 9, "ci_low": 0.5, "ci_high": 0.9}}
    figure = plot_drift.draw(policies, drifts, "sft", {"win_rates": rates})
    FigureCanvasAgg(figure).draw()
    assert len(figure.axes) == 3
    for axes in figure.axes:
        assert {text.get_text() for text in axes.texts} == set(policies)
        for text in axes.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.width


def test_no_drawing_crosses_a_value_that_cannot_be():
    """A KL and a length are not negative, and a rate is not above 1; an estimate of a KL may be."""
    for estimate, least in ((0.2, 0.0), (-0.1, -0.12)):
        drift = {
            "prompts": 8,
            "kl": {"sft": {"nats_per_sequence": estimate, "standard_error_per_sequence": 1.0}},
            "rewards": {},
            "completion_tokens": {"policy": 1.0, "start": 9.0},
        }
        rates = {"dpo-1": {"overall": {"win_rate_adjusted": 1.0, "ci_low": 0.7, "ci_high": 1.0}}}
        figure = plot_drift.draw(["dpo-1"], [drift], "sft", {"win_rates": rates})
        rate, tokens = figure.axes
        assert rate.get_ylim()[1] == 1 and tokens.get_ylim()[0] >= 0
        for axes in figure.axes:
            assert axes.get_xlim()[0] >= least
            assert all(min(line.get_xdata()) >= min(estimate, 0) for line in axes.lines)


def test_the_configured_attention_is_the_one_that_measures(world, tmp_path, monkeypatch):
    from prefline.training import logps

    used, load = [], logps.load

    def loaded(*given):
        used.append(load(*given))
        return used[-1]

    monkeypatch.setattr(logps, "load", loaded)
    measure(world, tmp_path / "drift.json", attn_implementation="eager")
    assert {model.config._attn_implementation for model in used} == {"eager"}


def test_labels_of_near_points_do_not_cover_each_other():
    labels = [(10, 50, 40), (20, 51, 40), (30, 49, 40), (200, 50, 40)]
    lifts = plot_drift.lifted(labels)
    heights = sorted(bottom + lift for (_, bottom, _), lift in zip(labels[:3], lifts, strict=False))
    assert all(high - low >= plot_drift.LINE for low, high in itertools.pairwise(heights))
    assert lifts[2:] == [0, 0] and plot_drift.lifted([]) == []

"""A sweep is the runs that it stands for: their names, values, order, and what is refused."""

import copy

import pytest
import yaml
from configs import DEFAULT, model_directory, refused
from snakemake.utils import update_config

from prefline import policies
from prefline.config import loading as configuration
from prefline.errors import InputError


def with_sweep(sweep, **keys):
    config = copy.deepcopy(DEFAULT)
    config["runs"]["dpo"] |= {"sweep": sweep, **keys}
    return config


def runs_of(sweep, **keys):
    return configuration.load(with_sweep(sweep, **keys))["runs"]


def overlaid(tmp_path, *texts):
    """Return the config under overlays, the last the strongest, as the rules load it."""
    config, files = copy.deepcopy(DEFAULT), []
    for number, text in enumerate(texts):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(text)
        update_config(config, yaml.safe_load(text))
    return configuration.load(config, [*map(str, files), "config.yaml"])


def test_a_grid_is_all_combinations_in_place_of_the_run():
    found = runs_of({"beta": [0.05, 0.5], "learning_rate": ["1e-4", 2.0e-7]})
    assert list(found) == [
        "dpo_beta_0p05_learning_rate_0p0001",
        "dpo_beta_0p05_learning_rate_2em7",
        "dpo_beta_0p5_learning_rate_0p0001",
        "dpo_beta_0p5_learning_rate_2em7",
        "rebel",
    ]
    assert found["dpo_beta_0p5_learning_rate_0p0001"] == DEFAULT["runs"]["dpo"] | {
        "beta": 0.5,
        "learning_rate": 1e-4,
    }


def test_points_have_the_names_and_values_that_they_are_given():
    found = runs_of({"low": {"beta": 0.05}, "as_it_is": {}, "ipo": {"loss_type": "ipo", "beta": 1}})
    assert list(found) == ["dpo_low", "dpo_as_it_is", "dpo_ipo", "rebel"]
    assert found["dpo_as_it_is"] == DEFAULT["runs"]["dpo"]
    assert found["dpo_ipo"]["loss_type"] == "ipo" and found["dpo_ipo"]["beta"] == 1.0


def test_a_point_removes_a_key_that_its_loss_does_not_take():
    found = runs_of({"one": {}, "rebel": {"loss_type": "rebel", "beta": None, "eta": 1.0}})
    assert "beta" not in found["dpo_rebel"] and found["dpo_one"]["beta"] == 0.1


def test_each_point_has_the_seeds_of_its_run():
    config = configuration.load(with_sweep({"beta": [1, 2.0]}, seeds=[1, 2]))
    chains = [name for name in policies.chains(config) if name.startswith("dpo")]
    assert chains == ["dpo_beta_1-s1", "dpo_beta_1-s2", "dpo_beta_2-s1", "dpo_beta_2-s2"]


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("peft", None, "none"),
        ("loss_type", ["sft", "sigmoid"], "sft_sigmoid"),
        ("optim", "adamw_torch_fused", "adamw_torch_fused"),
        ("label_smoothing", 1.0e-3, "0p001"),
        ("learning_rate", 12345.5, "12345p5"),
        ("weight_decay", 0, "0"),
    ],
)
def test_values_are_readable_in_names(key, value, shown):
    assert f"dpo_{key}_{shown}" in runs_of({key: [value]})


def test_overlays_add_to_a_sweep_and_remove_it(tmp_path):
    grid = "runs: {dpo: {sweep: {beta: [0.05, 0.5]}}}"
    assert len(overlaid(tmp_path, grid)["runs"]) == 3
    assert len(overlaid(tmp_path, grid, "runs: {dpo: {sweep: {learning_rate: [1e-4, 1e-3]}}}")["runs"]) == 5
    assert list(overlaid(tmp_path, grid, "runs: {dpo: {sweep: null}}")["runs"]) == ["dpo", "rebel"]
    assert "dpo_beta_0p05" in overlaid(tmp_path, grid, "train: {beta: 0.3}")["runs"]
    with pytest.raises(InputError, match=r"runs\.dpo\.beta has no effect, because runs\.dpo\.sweep"):
        overlaid(tmp_path, grid, "runs: {dpo: {beta: 0.3}}")


def test_a_swept_learning_rate_is_one_that_the_overlay_sets(tmp_path):
    start = f"models: {{sft: {{source: {model_directory(tmp_path / 'mine')}}}}}\n"
    rebel = "runs: {rebel: null, dpo: {sweep: "
    for sweep in ("{learning_rate: [1e-6, 1e-5]}", "{low: {learning_rate: 1e-6}}"):
        overlaid(tmp_path, f"{start}{rebel}{sweep}}}}}")
    with pytest.raises(InputError, match=r"runs\.dpo has the learning rate of config\.yaml"):
        overlaid(tmp_path, f"{start}{rebel}{{beta: [0.1, 0.2]}}}}}}")


@pytest.mark.parametrize(
    ("sweep", "sentence"),
    [
        ({"betta": [1]}, "runs.dpo.sweep has no key 'betta'; did you mean 'beta'?"),
        ({"low": {"betta": 1}}, "runs.dpo.sweep.low has no key 'betta'; did you mean 'beta'?"),
        ({"seeds": [1, 2]}, "runs.dpo.sweep has seeds, which repeat a training; write `seeds` beside"),
        ({"beta": []}, "runs.dpo.sweep.beta: the list is empty"),
        ({}, "runs.dpo.sweep: give {beta: [0.05, 0.5]}"),
        ({"beta": 0.1}, "runs.dpo.sweep: give {beta: [0.05, 0.5]}"),
        ({"beta": [1], "low": {"beta": 2}}, "runs.dpo.sweep: give {beta: [0.05, 0.5]}"),
        ([0.1], "runs.dpo.sweep: give {beta: [0.05, 0.5]}"),
        ({"beta": [0.1, "1e-1"]}, "runs.dpo.sweep.beta: two values have the name 0p1; remove one"),
        ({"beta": list(range(1, 200))}, "runs.dpo.sweep: 199 combinations or more, but at most 100 runs"),
        ({"peft": [{"r": 1}]}, "runs.dpo.sweep.peft: {'r': 1} makes no name; give the points names"),
        ({"Low": {"beta": 1}}, "runs.dpo.sweep: dpo_Low is no name of a run"),
        ({f"p{'x' * 70}": {"beta": 1}}, "has more than 64 letters"),
        ({"beta": [-1]}, "runs.dpo_beta_m1.beta: "),
    ],
    ids=str,
)
def test_a_mistaken_sweep_is_one_sentence(sweep, sentence):
    assert sentence in refused(with_sweep(sweep))


def test_a_run_of_a_sweep_is_no_other_run():
    config = with_sweep({"low": {"beta": 1}})
    config["runs"]["dpo_low"] = DEFAULT["runs"]["dpo"]
    assert "runs.dpo.sweep makes the run dpo_low, which `runs` has, too" in refused(config)


def test_all_sweeps_together_are_not_too_many():
    config = with_sweep({"beta": list(range(1, 62))})
    config["runs"]["rebel"]["sweep"] = {"eta": list(range(1, 61))}
    assert "runs.dpo.sweep makes 61 of 121 runs in all, but at most 100 can be made" in refused(config)


def test_too_many_runs_are_no_mistake_of_a_run_without_a_sweep():
    config = with_sweep({"beta": list(range(1, 101))})
    assert "runs.dpo.sweep makes 100 of 101 runs in all" in refused(config)
    config = copy.deepcopy(DEFAULT)
    config["runs"] |= {f"other_{number}": DEFAULT["runs"]["dpo"] for number in range(99)}
    assert "config: runs: 101 runs, but at most 100 can be made; remove some" in refused(config)

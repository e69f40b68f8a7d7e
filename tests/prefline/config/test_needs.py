"""Without runs, models are evaluated alone, and nothing is needed that only trainings use."""

import copy

import pytest
import yaml
from configs import DEFAULT, model_directory, refused

from prefline.config import loading as configuration
from prefline.config import named_files, needs
from prefline.errors import InputError


def without_runs(**keys):
    return {**copy.deepcopy(DEFAULT), "runs": {}, **keys}


@pytest.mark.parametrize("written", ["runs: {}", "runs:", "runs: {dpo: null, rebel: null}"])
def test_an_overlay_removes_all_runs(tmp_path, written):
    from snakemake.utils import update_config

    file, config = tmp_path / "mine.yaml", copy.deepcopy(DEFAULT)
    file.write_text(written)
    update_config(config, yaml.safe_load(written))
    assert configuration.load(config, [str(file), "config.yaml"])["runs"] == {}


def test_a_later_overlay_adds_a_run_to_none(tmp_path):
    from snakemake.utils import update_config

    config, files = copy.deepcopy(DEFAULT), []
    for name, text in (
        ("none", "runs: {}"),
        ("one", yaml.safe_dump({"runs": {"a": DEFAULT["runs"]["dpo"]}})),
    ):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(text)
        update_config(config, yaml.safe_load(text))
    assert list(configuration.load(config, [*map(str, files), "config.yaml"])["runs"]) == ["a"]


def test_only_evaluated_models_are_needed_without_runs():
    config = configuration.load(without_runs(evaluate=["base"]))
    assert needs.used_rewards(config) == {}
    assert needs.used_models(config) == {"sft", "base"}
    assert needs.models_with_ancestors(config, needs.used_models(config)) == ["start", "base", "sft"]


def test_a_judge_that_is_the_reward_model_needs_it():
    config = without_runs()
    config["mt_bench"]["judge"] = "reward"
    assert needs.used_models(configuration.load(config)) == {"sft", "reward_model"}


def test_data_that_only_trainings_read_may_be_missing():
    config = without_runs()
    config["prompts"]["source"] = "missing.jsonl"
    named_files.check(named_files.used(configuration.load(config)))
    config["runs"] = DEFAULT["runs"]
    with pytest.raises(InputError, match=r"prompts\.source"):
        named_files.check(named_files.used(configuration.load(config)))


def test_an_evaluated_model_must_have_weights(tmp_path):
    config = without_runs(evaluate=["mine"])
    config["models"]["mine"] = {"source": "data/policy"}
    with pytest.raises(InputError, match=r"models\.mine"):
        named_files.check(named_files.used(configuration.load(config)))
    config["models"]["mine"] = {"source": model_directory(tmp_path / "mine")}
    named_files.check(named_files.used(configuration.load(config)))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("bas", "is no entry of `models`; known: start, base, sft, reward_model"),
        ("dpo", "is a run, whose policies are always evaluated"),
        ("sft", "is the start policy, with which all are compared"),
        ("reward_model", "is trained as a classifier, and answers nothing"),
    ],
)
def test_what_cannot_be_evaluated_is_named(name, sentence):
    assert f"config: evaluate: {name} {sentence}" in refused({**copy.deepcopy(DEFAULT), "evaluate": [name]})


def test_a_model_that_would_be_named_like_a_match_is_refused():
    config = without_runs(evaluate=["a_vs_b"])
    config["models"]["a_vs_b"] = {"source": "data/policy"}
    assert "a_vs_b has a part that names of matches have" in refused(config)

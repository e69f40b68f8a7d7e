"""Which of several values of a training key counts; no model is trained with another's learning rate."""

import re
from pathlib import Path

import pytest
import yaml
from configs import COMPLETE, DEFAULT
from snakemake.utils import update_config

from prefline.config import loading as configuration
from prefline.config import precedence
from prefline.errors import InputError
from prefline.provenance import workflow

REBEL = DEFAULT["runs"]["rebel"]["learning_rate"]
ANOTHER = "models: {sft: {source: hub:a/b@c}}"


@pytest.fixture
def load(tmp_path):
    """A function that loads the config with overlays (texts) over it, and with values of --config (dict)."""

    def load(*overlays, given=None):
        config, files = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8")), []
        for number, text in enumerate(overlays):
            files.append(tmp_path / f"{number}.yaml")
            files[-1].write_text(text)
            update_config(config, yaml.safe_load(text))
        update_config(config, given or {})
        return configuration.load(config, [*files, "config.yaml"], given)

    return load


def rates(config):
    """The learning rates of dpo and of rebel."""
    return tuple(configuration.training(config, run)["learning_rate"] for run in ("dpo", "rebel"))


def test_within_a_file_a_runs_own_value_counts(load):
    assert rates(load("seed: 1")) == (DEFAULT["train"]["learning_rate"], REBEL)
    assert rates(load("train: {learning_rate: 1e-6}\nruns: {rebel: {learning_rate: 2e-6}}")) == (1e-6, 2e-6)


@pytest.mark.parametrize("section", ["train", "training_defaults"])
def test_an_overlays_general_value_beats_the_default_runs_own(load, section):
    text = f"{section}: {{learning_rate: 1e-6}}"
    assert rates(load(text)) == (1e-6, 1e-6)
    assert rates(load(text, "runs: {rebel: {learning_rate: 2e-6}}")) == (1e-6, 2e-6)
    assert rates(load("runs: {rebel: {learning_rate: 2e-6}}", text)) == (1e-6, 1e-6)


def test_a_key_of_online_likewise(load):
    own = "runs: {rebel: null, dpo: {method: grpo, beta: 0.04, epsilon: 0.1}}"
    assert configuration.training(load(own, "online: {epsilon: 0.3}"), "dpo")["epsilon"] == 0.3
    assert configuration.training(load("online: {epsilon: 0.3}", own), "dpo")["epsilon"] == 0.1


def test_an_overlays_training_defaults_beat_what_the_default_says_of_a_model(load):
    text = "training_defaults: {learning_rate: 1e-6, dtype: bfloat16}"
    for config, wanted in ((load(text), 1e-6), (load("seed: 2"), None)):
        for name in precedence.TRAINED:
            before = COMPLETE["models"][name]["training"]["learning_rate"]
            assert config["models"][name]["training"]["learning_rate"] == (wanted or before)
    again = load(text, "models: {sft: {training: {learning_rate: 3e-6}}}")
    assert again["models"]["sft"]["training"] | {"learning_rate": 0} == load(text)["models"]["sft"][
        "training"
    ] | {"learning_rate": 0}
    assert again["models"]["sft"]["training"]["learning_rate"] == 3e-6


def test_values_of_the_command_line_are_the_last(load):
    given = {"train": {"learning_rate": "1e-6"}}
    assert rates(load("runs: {rebel: {learning_rate: 2e-6}}", given=given)) == (1e-6, 1e-6)


def test_what_a_run_is_stays(load):
    config = load("train: {loss_type: ipo, beta: 0.2}")
    losses = {run: configuration.training(config, run)["loss_type"] for run in config["runs"]}
    assert losses == {"dpo": "ipo", "rebel": "rebel"}
    assert configuration.training(config, "dpo")["beta"] == 0.2


def test_the_default_named_as_an_overlay_changes_nothing():
    files = [Path("config.yaml").absolute()] * 2
    assert configuration.load(DEFAULT, [*files, "config.yaml"]) == COMPLETE
    assert len(precedence.layers(["config.yaml", "recipes/rebel.yaml", "config.yaml"])) == 2


@pytest.mark.parametrize(
    ("overlay", "sentence"),
    [
        (
            ANOTHER,
            "config: models.sft.source names hub:a/b@c, but runs.dpo has the learning rate of config.yaml, "
            "which suits the embedded model; set train.learning_rate in your overlay",
        ),
        (f"{ANOTHER}\nruns: {{dpo: {{learning_rate: 1e-6}}}}", "but runs.rebel has the learning rate of"),
        (
            "models: {base: {source: data/making}}",
            "but models.sft.training has the learning rate of config.yaml",
        ),
        (
            "models: {start: {source: data/making}}\ntrain: {learning_rate: 1e-6}",
            "models.start.source names data/making, but models.base.training has the learning rate of "
            "config.yaml, which suits the embedded model; set models.base.training.learning_rate in your "
            "overlay",
        ),
        (
            "models: {own: {source: data/making}, reward_model: {init: own}}",
            "models.own.source names data/making, but models.reward_model.training has the learning rate",
        ),
    ],
)
def test_another_model_is_not_trained_with_the_defaults_learning_rate(load, overlay, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        load(overlay)
    with pytest.raises(InputError, match=re.escape(sentence)):
        load("seed: 1", given=yaml.safe_load(overlay))
    load(overlay, "training_defaults: {learning_rate: 1e-6}")


@pytest.mark.parametrize(
    "overlay",
    [
        "models: {sft: {source: data/policy}}",
        "models: {reward_model: {source: data/making}}",
        "models: {another: {source: data/making}}",
        f"{ANOTHER}\ntrain: {{learning_rate: 2e-4}}",
        f"{ANOTHER}\nruns: {{dpo: {{learning_rate: 1e-6}}, rebel: {{learning_rate: 1e-6}}}}",
        f"{ANOTHER}\nruns: {{dpo: {{learning_rate: 1e-6}}, rebel: null}}",
    ],
)
def test_a_model_of_the_default_or_one_with_a_learning_rate_is_trained(load, overlay):
    load(overlay)


def test_the_8b_block_of_the_docs_trains_every_run_as_it_says(load):
    page = Path("docs/your_own.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(models:\n  sft: \{source: \"hub:.*?)^```$", page, re.M | re.S)
    said = yaml.safe_load(block)["train"]
    assert said["learning_rate"] == 5e-7
    config = load(block)
    for run in config["runs"]:
        assert said.items() <= configuration.training(config, run).items()


def test_an_edit_of_the_default_is_no_overlay():
    """`train` in the same file does not replace what a run says."""
    graph = workflow.jobs()
    trained = workflow.changed(graph, workflow.jobs({"train": {"learning_rate": 1e-5}}))
    assert {name for name in trained if graph[name].rule == "train_policy"} == {"results/models/dpo-1"}


FINISHED = "models: {sft: {source: hub:a/b@c, train_data: mine.jsonl}}\ntrain: {learning_rate: 1e-6}"
DATA = "models: {sft: {train_data: mine.jsonl}}"


@pytest.mark.parametrize("overlays", [[FINISHED], [FINISHED.replace(", train_data: mine.jsonl", ""), DATA]])
def test_data_for_a_model_that_is_not_trained_is_refused(load, overlays):
    sentence = (
        "config: models.sft.train_data is never read, because models.sft.source names the finished model "
        "hub:a/b@c; to train that model, write it as models.start.source, and models.sft with source: null"
    )
    with pytest.raises(InputError, match=re.escape(sentence)):
        load(*overlays)


@pytest.mark.parametrize(
    "overlays",
    [
        [DATA, FINISHED.replace(", train_data: mine.jsonl", "")],  # the later file wants the finished model
        [FINISHED.replace("mine.jsonl", "data/world/sft_train.jsonl")],  # a copy of config.yaml
        [DATA],
    ],
)
def test_data_that_a_later_model_replaces_and_a_copy_of_the_config_are_taken(load, overlays):
    load(*overlays)

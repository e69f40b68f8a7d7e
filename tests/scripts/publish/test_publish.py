"""What others see of a policy: its card is true and valid, and a push is private, repeatable, whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import stand_in_hub
import yaml
from huggingface_hub import ModelCard

from prefline import files
from prefline.config import loading as configuration
from prefline.provenance import manifest
from scripts.report import write_model_card

TOKEN = "hf_canary"
SLICE = {
    "win": 10, "tie": 4, "loss": 2, "error": 0, "win_rate_adjusted": 0.75, "ci_low": 0.5, "ci_high": 0.875,
}  # fmt: skip
WINRATE = {
    "questions": 8,
    "start": "sft",
    "judge": "reference",
    "win_rates": {
        "dpo-1": {
            "overall": SLICE,
            "category": {"a|b": SLICE | {"win_rate_adjusted": None, "ci_low": None, "ci_high": None}},
            "position_bias": {"consistency": 0.9},
            "mean_words": {"policy": 5.2, "start": 14.1},
        }
    },
}


@pytest.fixture
def policy(tmp_path):
    """Flags of write_model_card and publish for a policy in tmp_path."""
    model = tmp_path / "models/dpo-1"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights" * 1000)
    (tmp_path / "tokenized.parquet").write_bytes(b"ids")
    params = {"loss_type": "sigmoid", "beta": 0.1, "tokenized": ["x"]}
    described = tmp_path / "models/dpo-1.json"
    manifest.write(described, model, "train_policy", params, [tmp_path / "tokenized.parquet"])
    metrics = {"train_steps": 56, "eval_loss": 0.05, "eval_loss_before": 0.69}
    files.write_json(tmp_path / "metrics.json", metrics)
    files.write_json(tmp_path / "winrate.json", WINRATE)
    counts = {"splits": {split: {"kept": kept} for split, kept in (("train", 446), ("test", 64))}}
    files.write_json(tmp_path / "sft/tokenized.json", counts)
    (tmp_path / "sft/preferences.parquet").write_bytes(b"pairs")
    return tmp_path


def card(folder, **overlay):
    """The card of the policy in `folder`, with the default config overlaid."""
    config = yaml.safe_load(Path("config.yaml").read_text()) | overlay
    write_model_card.main(
        [
            *("--policy", "dpo-1", "--manifest", f"{folder}/models/dpo-1.json"),
            *("--metrics", f"{folder}/metrics.json", "--winrate", f"{folder}/winrate.json"),
            *("--pairs", f"{folder}/sft/tokenized.json", "--config", json.dumps(configuration.load(config))),
            *("--out", f"{folder}/card.md"),
        ]
    )
    return (folder / "card.md").read_text()


def publish(folder, hub, *pairs, token=TOKEN, namespace="org", private="true"):
    """The finished process of a push: the library reads where the hub is when it is imported."""
    environment = {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    command = [
        *(sys.executable, "-m", "scripts.publish.publish", "--policy", "dpo-1", "--namespace", namespace),
        *("--name", "ours", "--private", private, "--model", f"{folder}/models/dpo-1"),
        *("--manifest", f"{folder}/models/dpo-1.json", "--card", f"{folder}/card.md"),
        *("--pairs", *pairs, "--out", f"{folder}/published.json"),
    ]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def hub():
    with stand_in_hub.serving(TOKEN) as made:
        yield made


def test_a_card_has_metadata_that_the_hub_reads_and_says_what_is_known(policy):
    text = card(policy, publish={**configuration_of("publish"), "license": "apache-2.0"})
    data = ModelCard(text).data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "apache-2.0",
        "transformers",
        "text-generation",
    )
    assert data.base_model is None and "sigmoid" in data.tags
    assert data.eval_results[0].metric_value == 0.75
    assert "| all | 75.0 % | 50.0 % to 87.5 % | 10 | 4 | 2 | 0 |" in text
    assert "| a\\|b | - | - to - |" in text
    assert "446 pairs" in text and "0.69" in text and "`beta` | `0.1`" in text
    for sha in files.read_json(policy / "models/dpo-1.json")["files"].values():
        assert sha in text


def configuration_of(section):
    return yaml.safe_load(Path("config.yaml").read_text())[section]


def test_a_card_names_what_it_comes_from_on_the_hub_and_no_folder_of_this_machine(policy):
    models = configuration_of("models")
    models["sft"]["source"] = "hub:org/base@0123abc"
    models["reward_model"]["source"] = "/home/somebody/secret-project/rm"
    prompts = {**configuration_of("prompts"), "source": "hub:org/prompts@0123abc#train"}
    data = ModelCard(text := card(policy, models=models, prompts=prompts)).data
    assert data.base_model == "org/base" and data.datasets == ["org/prompts"]
    assert "secret-project" not in text


def test_a_push_is_private_whole_and_repeated_without_a_new_commit(policy, hub):
    card(policy)
    done = publish(policy, hub)
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["models/org/ours-dpo-1"]
    assert repository["private"]
    here = {path.name: path.read_bytes() for path in (policy / "models/dpo-1").iterdir()}
    assert repository["files"] == {**here, "README.md": (policy / "card.md").read_bytes()}
    first = files.read_json(policy / "published.json")
    uploads = sum("/large/" in one for one in hub.seen)
    assert publish(policy, hub).returncode == 0
    assert files.read_json(policy / "published.json") == first
    assert len(repository["commits"]) == 1 and sum("/large/" in one for one in hub.seen) == uploads == 1
    assert set(hub.repositories) == {"models/org/ours-dpo-1"}


def test_pairs_go_to_a_dataset_of_their_own(policy, hub):
    card(policy)
    assert publish(policy, hub, f"{policy}/sft/preferences.parquet").returncode == 0
    pairs = hub.repositories["datasets/org/ours-dpo-1-pairs"]
    assert pairs["files"] == {"sft.parquet": b"pairs"} and pairs["private"]


def test_a_push_that_broke_off_is_repeated(policy, hub):
    card(policy)
    hub.broken = 1
    done = publish(policy, hub)
    assert done.returncode == 1 and "cannot be pushed" in done.stderr and "Traceback" not in done.stderr
    assert not (policy / "published.json").exists()
    assert publish(policy, hub).returncode == 0
    assert "model.safetensors" in hub.repositories["models/org/ours-dpo-1"]["files"]


def test_a_token_that_may_not_write_is_one_sentence_without_it(policy, hub):
    card(policy)
    done = publish(policy, hub, token="hf_wrong")
    assert done.returncode == 1
    assert "org/ours-dpo-1 cannot be pushed" in done.stderr and "HF_TOKEN" in done.stderr
    assert "hf_wrong" not in done.stderr + done.stdout and "Traceback" not in done.stderr
    assert hub.repositories == {}


def test_a_model_that_was_changed_is_not_pushed(policy, hub):
    card(policy)
    (policy / "models/dpo-1/config.json").write_text('{"changed": true}')
    done = publish(policy, hub)
    assert done.returncode == 1 and "config.json: is not what" in done.stderr
    assert hub.repositories == {}


def test_without_a_namespace_nothing_is_asked(policy, hub):
    done = publish(policy, hub, namespace="null")
    assert done.returncode == 1 and "publish.namespace is null" in done.stderr
    assert hub.seen == []


def test_a_card_of_a_policy_that_learnt_from_rewards_speaks_of_no_pairs(policy):
    config = yaml.safe_load(Path("config.yaml").read_text())
    config["runs"]["dpo"] |= {"method": "grpo"}
    made = files.read_json(policy / "models/dpo-1.json")
    del made["lineage"]["params"]["loss_type"]
    metrics = {"train_steps": 28, "eval_reward": 6.5, "eval_reward_before": -1.4}
    text = write_model_card.card("dpo-1", config, made, metrics, WINRATE, [])
    assert "preference optimization with the method `grpo`" in text
    assert "- grpo" in text
    assert "Trained in 28 steps on the rewards of what it said meanwhile." in text
    assert "| reward | -1.4 | 6.5 |" in text
    assert "completions of each prompt" not in text

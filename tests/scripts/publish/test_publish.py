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
from scripts.publish import write_model_card, write_trained_card

TOKEN = "hf_canary"
SLICE = {
    "win": 10, "tie": 4, "loss": 2, "error": 0, "matches": 16, "win_rate_adjusted": 0.75, "ci_low": 0.5,
    "ci_high": 0.875,
}  # fmt: skip
WINRATE = {
    "questions": 8,
    "start": "sft",
    "judge": "reference",
    "comparisons": [
        {
            "policy": "rebel-1",
            "other": "dpo-1",
            "by": "start",
            "matches": 16,
            "advantage": 0.0625,
            "ci_low": -0.01,
            "ci_high": 0.2,
            "p_value": 0.25,
            "p_corrected": 0.5,
        },
    ],
    "other_judges": {"other": {"agreement": {"share": 0.8125}}},
    "repeated": {},
    "win_rates": {
        "dpo-1": {
            "overall": SLICE,
            "category": {"a|b": SLICE | {"win_rate_adjusted": None, "ci_low": None, "ci_high": None}},
            "position_bias": {
                "consistency": 0.9,
                "biased_toward_first": 0.07,
                "biased_toward_second": 0.03,
            },
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


def card(folder, trained="models", **overlay):
    """The card of the policy in `folder`, with the default config overlaid."""
    config = yaml.safe_load(Path("config.yaml").read_text()) | overlay
    write_model_card.main(
        [
            *("--policy", "dpo-1", "--manifest", f"{folder}/models/dpo-1.json"),
            *("--trained", f"{folder}/{trained}/dpo-1.json"),
            *("--metrics", f"{folder}/metrics.json", "--winrate", f"{folder}/winrate.json"),
            *("--pairs", f"{folder}/sft/tokenized.json", "--config", json.dumps(configuration.load(config))),
            *("--out", f"{folder}/card.md"),
        ]
    )
    return (folder / "card.md").read_text()


def publish(folder, hub, *pairs, token=TOKEN, namespace="org", private="true", adapter=(), model=("dpo-1",)):
    """The finished process of a push: the library reads where the hub is when it is imported."""
    environment = {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    command = [
        *(sys.executable, "-m", "scripts.publish.publish", "--policy", "dpo-1", "--namespace", namespace),
        *("--name", "ours", "--private", private, "--model", *[f"{folder}/models/{name}" for name in model]),
        *("--manifest", f"{folder}/models/dpo-1.json", "--card", f"{folder}/card.md"),
        *("--adapter", *[str(path) for path in adapter], "--base", *[f"{folder}/base.json" for _ in adapter]),
        *("--pairs", *pairs, "--pairs-card", *([f"{folder}/pairs.md"] if pairs else [])),
        *("--out", f"{folder}/published.json"),
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
    assert "| all | 75.0 % | 50.0 % to 87.5 % | 10 | 4 | 2 | 16 of 16 |" in text
    assert "| a\\|b | - | - to - |" in text
    assert str(policy) not in text, "a folder of this machine"
    assert "-6.2 points of the win rate against `rebel-1`\n  (-20.0 to +1.0; p 0.5, corrected" in text
    assert "first answer in 7.0 % and the second in 3.0 %" in text
    assert "\nThe judge `other` agrees with it in 81.2 % of the matches.\n" in text
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
    (policy / "pairs.md").write_text("# Pairs\n")
    assert publish(policy, hub, f"{policy}/sft/preferences.parquet").returncode == 0
    pairs = hub.repositories["datasets/org/ours-dpo-1-pairs"]
    assert pairs["files"] == {"sft.parquet": b"pairs", "README.md": b"# Pairs\n"} and pairs["private"]


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
    assert done.returncode == 1 and "config.json: differs from" in done.stderr
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
    given = {"config": config, "manifest": made, "trained": made, "metrics": metrics}
    text = write_model_card.card("dpo-1", given, WINRATE, [])
    assert "preference optimization with the method `grpo`" in text
    assert "- grpo" in text
    assert "Trained in 28 steps on the rewards of completions that it sampled during training." in text
    assert "| reward | -1.4 | 6.5 |" in text
    assert "completions of each prompt" not in text


@pytest.mark.parametrize("seeds", [[1], [1, 2]], ids=["one", "two"])
def test_a_card_tells_of_seeds_only_if_there_are_several(policy, seeds):
    config = yaml.safe_load(Path("config.yaml").read_text())
    config["runs"]["dpo"]["seeds"] = seeds
    made = files.read_json(policy / "models/dpo-1.json")
    metrics = files.read_json(policy / "metrics.json")
    given = {"config": config, "manifest": made, "trained": made, "metrics": metrics}
    several = len(seeds) > 1
    overall = SLICE | {"policies": [f"dpo-s{seed}-1" for seed in seeds], "sd": 0.05 if several else None}
    rates = {
        "repeated": {"dpo-1": {"overall": overall}},
        "win_rates": {"dpo-s1-1": WINRATE["win_rates"]["dpo-1"]},
    }
    text = write_model_card.card("dpo-s1-1", given, WINRATE | rates, [])
    assert (
        "standard deviation over seeds: 5.0 %). Compared with others, over all seeds:\n\n- -6.2" in text
    ) == several
    assert ("Compared with others, as `dpo-1`, of which it is the only seed:\n\n- -6.2" in text) == (
        not several
    )
    assert " - %" not in text and "%\n\n\n\n" not in text
    alone = write_model_card.card("dpo-s1-1", given, WINRATE | rates | {"comparisons": []}, [])
    assert "Compared with others" not in alone


PEFT = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}


@pytest.fixture
def adapter(policy):
    """The adapters from which the policy in `policy` was merged: their directory, with a manifest."""
    made = policy / "adapters/dpo-1"
    made.mkdir(parents=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": "/home/me/results/models/sft", "r": 4}
    files.write_json(made / "adapter_config.json", config)
    files.write_json(made / "training.json", {"prompt_ids": [[1, 2]]})
    (made / "adapter_model.safetensors").write_bytes(b"adapters" * 1000)
    (made / "tokenizer.json").write_text("{}")
    params = {"loss_type": "ipo", "beta": 0.2, "peft": PEFT}
    manifest.write(policy / "adapters/dpo-1.json", made, "train_adapter", params, [])
    merged = {"merge_into": "original"}
    adapters = [policy / "adapters/dpo-1.json"]
    manifest.write(policy / "models/dpo-1.json", policy / "models/dpo-1", "merge_adapter", merged, adapters)
    return made


def test_a_card_of_a_merged_policy_tells_of_its_training(policy, adapter):
    text = card(policy, trained="adapters")
    assert "the loss `ipo`" in text and "`beta` | `0.2`" in text
    assert "Its adapters were merged into the original weights." in text
    for sha in files.read_json(policy / "models/dpo-1.json")["files"].values():
        assert sha in text


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "both"])
def test_adapters_name_the_model_that_they_were_trained_on_and_its_commit(policy, adapter, hub, alone):
    from peft import PeftConfig

    card(policy, trained="adapters")
    base = {"repository": "org/ours-sft", "commit": "c" * 40, "holds": "weights"}
    files.write_json(policy / "base.json", [{**base, "holds": "adapters", "commit": "d"}, base])
    done = publish(policy, hub, adapter=[adapter], model=() if alone else ("dpo-1",))
    assert done.returncode == 0, done.stderr
    assert set(hub.repositories) == {"models/org/ours-dpo-1-adapter"} | (
        set() if alone else {"models/org/ours-dpo-1"}
    )
    pushed = hub.repositories["models/org/ours-dpo-1-adapter"]
    assert pushed["private"] and set(pushed["files"]) == {
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json")
    }, "rows of the data stay here"
    (policy / "pulled").mkdir()
    (policy / "pulled/adapter_config.json").write_bytes(pushed["files"]["adapter_config.json"])
    config = PeftConfig.from_pretrained(policy / "pulled")
    assert (config.base_model_name_or_path, config.revision) == ("org/ours-sft", "c" * 40)
    text = pushed["files"]["README.md"].decode()
    data = ModelCard(text).data
    assert (data.base_model, data.base_model_relation, data.library_name) == (
        "org/ours-sft",
        "adapter",
        "peft",
    )
    assert f"load them on `org/ours-sft` at the revision `{'c' * 40}`" in text
    assert "/home/me" not in text + pushed["files"]["adapter_config.json"].decode()
    assert {one["holds"] for one in files.read_json(policy / "published.json")} == (
        {"adapters"} if alone else {"weights", "adapters"}
    )


def test_adapters_on_a_model_of_the_hub_name_it(policy, adapter, hub):
    card(policy, trained="adapters")
    fetched = {"source": "hub:Qwen/Qwen3-8B@main", "commit": "e" * 40}
    files.write_json(policy / "base.json", {"lineage": {"params": fetched}})
    assert publish(policy, hub, adapter=[adapter], model=()).returncode == 0
    config = json.loads(hub.repositories["models/org/ours-dpo-1-adapter"]["files"]["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == ("Qwen/Qwen3-8B", "e" * 40)


TRAINED = {
    "base": ({"documents": 900}, {"perplexity": (30.0, 5.5)}, "continues text", "text-generation"),
    "sft": ({"rows": 3000}, {"loss": (6.27, 2.66)}, "chat template, and let it generate", "text-generation"),
    "reward_model": ({"pairs": 1900}, {"accuracy": (0.51, 0.87)}, "is the score", "text-classification"),
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_card_of_a_model_that_runs_start_from_tells_its_data_and_its_numbers(tmp_path, name):
    counted, measured, use, task = TRAINED[name]
    (tmp_path / name).mkdir()
    (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    secret = "/home/somebody/secret-project/train.jsonl"
    params = {"learning_rate": 0.001, "train_data": [secret, "hub:org/set@0123abc#train"], "peft": None}
    params |= {"eval_data": "data/test.jsonl", "columns": "auto"}
    manifest.write(tmp_path / f"{name}.json", tmp_path / name, f"train_{name}", params, [])
    metrics = {"train_steps": 19, **{f"train_{what}": number for what, number in counted.items()}}
    metrics |= {f"train_{what}_dropped": {"too_long": 3, "empty": 1} for what in counted}
    for what, (before, after) in measured.items():
        metrics |= {f"eval_{what}_before": before, f"eval_{what}": after}
    files.write_json(tmp_path / "metrics.json", metrics)
    config = configuration.load(yaml.safe_load(Path("config.yaml").read_text()))
    config["models"][name]["train_data"] = params["train_data"]
    config["models"]["start"]["source"] = "hub:org/start@0123abc"
    words = [
        "--model-name",
        name,
        "--manifest",
        f"{tmp_path}/{name}.json",
        "--trained",
        f"{tmp_path}/{name}.json",
    ]
    words += ["--metrics", f"{tmp_path}/metrics.json", "--config", json.dumps(config)]
    write_trained_card.main([*words, "--out", f"{tmp_path}/card.md"])
    text = (tmp_path / "card.md").read_text()
    data = ModelCard(text).data
    assert (data.base_model, data.datasets, data.pipeline_tag) == ("org/start", ["org/set"], task)
    (what, number), (measure, (before, after)) = *counted.items(), *measured.items()
    assert f"Trained in 19 steps on {number} {what}, 4 dropped." in text
    assert f"| {measure} | {before:.4g} | {after:.4g} |" in text
    assert use in text and "`learning_rate` | `0.001`" in text
    assert "secret-project" not in text and "`…/train.jsonl`" in text
    assert ("Scores compare answers" in text) == (name == "reward_model")

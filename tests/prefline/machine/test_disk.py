"""A plan that writes more than a disk has free is refused in one sentence, by a lower estimate."""

import copy
from types import SimpleNamespace

import large_models
import pytest
from configs import COMPLETE

from prefline.machine import disk
from prefline.machine.disk import Job

GB = 10**9
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(disk.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    large_models.write(tmp_path / "policy", large_models.LLAMA_8B)
    config = copy.deepcopy(COMPLETE)
    config["models"]["sft"] = config["models"]["sft"] | {"source": "policy"}
    config["train"]["dtype"] = "bfloat16"
    return config


def training(config, name="dpo-1", **changed):
    return Job("train", name, ("preference", config["train"] | changed))


def test_each_training_writes_a_model_and_one_checkpoint_is_there_at_a_time(config):
    needs = disk.needed(config, [training(config), training(config, "rebel-1"), training(config, "rebel-2")])
    assert needs["results"]["models"] == pytest.approx(3 * 16 * GB, rel=0.05)
    assert needs["work"]["checkpoints"] == pytest.approx(12 * 8 * GB, rel=0.05)
    small = disk.needed(config, [training(config, optim="adamw_8bit")])
    assert small["work"]["checkpoints"] == pytest.approx(6 * 8 * GB, rel=0.05)


def test_adapters_are_small_and_merged_models_are_not(config):
    adapter = training(config, peft=LORA)
    assert disk.needed(config, [adapter])["results"]["models"] < 0.1 * GB
    merged = disk.needed(config, [adapter, adapter._replace(does="merge")])
    assert merged["results"]["models"] == pytest.approx(16 * GB, rel=0.05)
    assert merged["work"]["checkpoints"] < GB


def test_fetched_models_count_where_they_cannot_be_linked_or_when_their_size_is_known(config, tmp_path):
    assert "models" not in disk.needed(config, [Job("fetch", "sft")])["results"]
    config["models"]["sft"]["source"] = f"hub:some/model@{'0' * 40}"
    assert disk.needed(config, [Job("fetch", "sft"), training(config)])["results"] == {}
    large_models.write(tmp_path / "results/models/sft", large_models.LLAMA_8B)
    assert disk.needed(config, [training(config)])["results"]["models"] > 15 * GB


def test_completions_are_in_results_and_in_the_journal(config):
    config["generate"]["max_tokens"] = 1000
    rows = config["prompts"]["shard_size"] * config["generate"]["num_completions"]
    needs = disk.needed(config, [Job("generate", "sft")] * 3)
    assert needs["results"] == {"completions": 3000 * rows} == needs["work"]


@pytest.mark.parametrize("free", [1e6, 20 * GB, 400 * GB])
def test_a_disk_that_is_too_small_is_one_sentence(config, monkeypatch, free):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    said = disk.trouble(disk.needed(config, [training(config)]))
    if free == 400 * GB:
        assert said is None
        return
    assert "\n" not in said and "results/ and work/" in said and "(checkpoints 96, models 16" in said
    assert "write at least 112" in said and f"free {(112.5 * GB - free) / GB:.0f} GB there" in said


def test_a_full_folder_of_temporary_files_is_another_sentence(config, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert disk.trouble({"results": {}, "tmp": {"temporary files": 1e7}}).endswith(
        "set TMPDIR to a folder of another disk"
    )

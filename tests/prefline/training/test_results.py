"""The work key: what names a training, so that checkpoints and results are those of this very one."""

import argparse
import json
import shutil
from pathlib import Path

import pytest
import small_model

from prefline import files
from prefline.config import section
from prefline.training import results
from prefline.training.settings import Settings


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return small_model.make_texts(tmp_path_factory.mktemp("world"), 60)


def settings_of(world, out, **changed):
    parser = argparse.ArgumentParser()
    for name in ("train-data", "eval-data"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--columns", type=json.loads)
    parser.add_argument("--max-length", type=int)
    section.add(parser, "data")
    Settings.add_flags(parser)
    words = small_model.text_flags(world, out, **{"max_length": 64} | changed)
    return Settings.of(vars(parser.parse_args(words)))


class TestWorkKey:
    def key(self, world, out, inputs=(), **changed):
        settings = settings_of(world, out, **changed)
        return results.work_key(settings, "scripts/models/pretrain.py", [world / "train.jsonl", *inputs])

    def test_paths_and_pace_do_not_count(self, world, tmp_path):
        usual = self.key(world, tmp_path)
        assert usual == self.key(world, tmp_path / "elsewhere")
        assert usual == self.key(world, tmp_path, per_device_train_batch_size=1, save_steps=1)

    @pytest.mark.parametrize("changed", [{"learning_rate": 2e-2}, {"seed": 2}, {"peft": small_model.LORA}])
    def test_what_shapes_the_weights_counts(self, world, tmp_path, changed):
        assert self.key(world, tmp_path) != self.key(world, tmp_path, **changed)

    def test_contents_count(self, world, tmp_path):
        model = tmp_path / "model"
        files.write_json(model / "config.json", 1)
        before = self.key(world, tmp_path, [model])
        files.write_json(model / "config.json", 2)
        assert self.key(world, tmp_path, [model]) != before

    def test_code_counts_and_comments_do_not(self, world, tmp_path, monkeypatch):
        for package in ("prefline", "scripts"):
            shutil.copytree(package, tmp_path / package)
        monkeypatch.chdir(tmp_path)
        before = self.key(world, tmp_path)
        script = Path("scripts/models/pretrain.py")
        script.write_text(script.read_text() + "\n# a comment\n")
        assert self.key(world, tmp_path) == before
        module = Path("prefline/training/checkpoints.py")
        module.write_text(module.read_text() + "\nMORE = 1\n")
        assert self.key(world, tmp_path) != before

    def test_a_manifest_stands_for_its_directory(self, world, tmp_path):
        model = tmp_path / "model"
        files.write_json(model / "config.json", 1)
        before = self.key(world, tmp_path, [model])
        files.write_json(
            tmp_path / "model.json", {"files": {"config.json": files.sha256(model / "config.json")}}
        )
        assert self.key(world, tmp_path, [model]) == before

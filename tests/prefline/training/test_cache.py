"""Kept trainings: back as they were, linked or copied, never damaged."""

import errno
import os

import pytest

from prefline import files
from prefline.training import cache

WEIGHTS = {"config.json": "{}", "model.safetensors": "weights", "adapter/a.safetensors": "adapter"}


@pytest.fixture
def model(tmp_path):
    for name, text in WEIGHTS.items():
        files.write_text(tmp_path / "results/model" / name, text)
    files.write_text(tmp_path / "results/metrics.json", "1")
    return tmp_path / "results/model"


def others(model):
    return {"metrics.json": model.with_name("metrics.json")}


def contents(directory):
    return {
        str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()
    }


def restored(tmp_path, model):
    back = tmp_path / "back"
    cache.restore(tmp_path / "work", back / "model", others(back / "model"))
    return contents(back)


@pytest.mark.parametrize("links", [True, False])
def test_what_is_kept_comes_back(tmp_path, model, links, monkeypatch):
    if not links:

        def refuse(*_):
            raise OSError(errno.EXDEV, "another file system")

        monkeypatch.setattr(os, "link", refuse)
    wanted = contents(model.parent)
    cache.keep(tmp_path / "work", model, others(model))
    weights = tmp_path / "work/result/model/model.safetensors"
    assert weights.samefile(model / "model.safetensors") == links
    files.write_text(model / "model.safetensors", "those of another config")
    assert cache.whole(tmp_path / "work").keys() == wanted.keys()
    assert restored(tmp_path, model) == wanted


def test_nothing_was_kept(tmp_path, capsys):
    assert cache.whole(tmp_path / "work") is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "damage",
    [
        lambda model, result: (model / "model.safetensors").write_text("edited in place"),
        lambda model, result: (result / "model/model.safetensors").unlink(),
        lambda model, result: (result / "model/more.safetensors").write_text(""),
        lambda model, result: (result / "result.json").write_text("{"),
        lambda model, result: (result / "metrics.json").unlink(),
    ],
)
def test_damage_is_said_and_nothing_handed_out(tmp_path, model, capsys, damage):
    cache.keep(tmp_path / "work", model, others(model))
    damage(model, tmp_path / "work/result")
    assert cache.whole(tmp_path / "work") is None
    assert ": differs from the cached file; training again" in capsys.readouterr().out


def test_a_full_disk_costs_only_what_would_have_been_kept(tmp_path, model, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "_link", full)
    cache.keep(tmp_path / "work", model, others(model))
    assert "No space left on device; the results are complete" in capsys.readouterr().out
    assert cache.whole(tmp_path / "work") is None
    assert contents(tmp_path / "work") == {}

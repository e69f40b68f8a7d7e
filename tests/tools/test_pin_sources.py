"""Pinning: branches become commits, everything else stays to the byte."""

from types import SimpleNamespace

import pytest

from prefline.errors import InputError
from tools import pin_sources

COMMIT = "0123456789abcdef" * 2 + "01234567"
RECIPE = f"""models:
  sft: {{source: "hub:org/model@main"}} # or hub:org/other@COMMIT, as you like
  reward_model: {{source: "hub:org/pinned@{COMMIT[::-1]}"}}
prompts:
  source: &prompts hub:org/data@v1.0#all/train[:10%]
  again: [hub:org/data@v1.0#all/train[:10%], hub:org/data@main#test]
"""


def test_branches_become_commits_and_nothing_else_changes(tmp_path, monkeypatch, capsys):
    asked = []

    def info(kind):
        def answer(_, name, revision):
            asked.append((kind, name, revision))
            return SimpleNamespace(sha=COMMIT)

        return answer

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", info("model"))
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", info("dataset"))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    pin_sources.main([str(path)])
    pinned = RECIPE.replace("@main", f"@{COMMIT}").replace("@v1.0", f"@{COMMIT}")
    assert path.read_text() == pinned
    assert asked == [
        ("model", "org/model", "main"),
        ("dataset", "org/data", "v1.0"),
        ("dataset", "org/data", "main"),
    ]
    capsys.readouterr()
    pin_sources.main([str(path)])
    assert capsys.readouterr().out == f"{path}: nothing to pin\n"


def test_a_source_that_the_hub_does_not_know_leaves_the_file_as_it_is(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("offline")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    with pytest.raises(InputError, match=r"hub:org/model@main cannot be downloaded .* consent to a licence"):
        pin_sources.main([str(path)])
    assert path.read_text() == RECIPE


def test_a_file_that_is_not_there_is_named_before_another_is_written(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    with pytest.raises(InputError, match=r"gone.yaml: no such file; nothing was pinned"):
        pin_sources.main([str(path), str(tmp_path / "gone.yaml")])
    assert path.read_text() == RECIPE

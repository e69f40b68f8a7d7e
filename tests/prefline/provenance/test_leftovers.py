"""What no rule makes any more is removed, if DVC's cache has it, and nothing outside results/."""

import subprocess
import sys
from pathlib import Path

import pytest

from prefline import files
from prefline.provenance import dvc_stages, leftovers, records

DVC = Path(sys.executable).with_name("dvc")
STAGE = "stages: {all: {cmd: ls, outs: [results/models: {persist: true}]}}"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a model of its own, a fetched one, and a link to a folder of the user's."""
    monkeypatch.chdir(tmp_path)
    for folder in ("results/models/dpo-1", "results/fetched/start", "elsewhere"):
        files.write_text(f"{folder}/config.json", folder)
    Path("results/models/start").symlink_to("../fetched/start")
    Path("results/models/mine").symlink_to("../../elsewhere")
    files.write_text("dvc.yaml", STAGE)
    for name in ("dpo-1", "start", "mine"):
        files.write_text(records.path_of(f"results/models/{name}"), "{}")
    return tmp_path


def dvc(*words):
    subprocess.run([DVC, *words], check=True, capture_output=True)


def test_what_dvc_has_and_fetched_models_are_removed(project):
    subprocess.run(["git", "init", "-q"], check=True)
    dvc("init", "-q")
    dvc("commit", "-f", "-q")
    assert dvc_stages.stored() == {"results/models/dpo-1/config.json"}
    said = leftovers.sweep(lambda path: False)
    assert said.startswith("removed 2 results ") and "no rule makes results/models/mine under" in said
    assert [path.name for path in Path("results/models").iterdir()] == ["mine"]
    assert not list(Path("results/fetched").iterdir())
    assert Path("elsewhere/config.json").read_text() == "elsewhere"
    dvc("checkout", "-q")
    assert Path("results/models/dpo-1/config.json").exists()


def test_what_dvc_lacks_stays_and_is_named(project):
    said = leftovers.sweep(lambda path: path.endswith("start"))
    assert "no rule makes results/models/dpo-1, results/models/mine under this config; they stay" in said
    assert Path("results/models/dpo-1/config.json").exists() and Path("results/models/start").exists()

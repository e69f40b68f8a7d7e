"""DVC's stages: the data that they see, and what they leave behind."""

import base64
import json
import os

import pytest

from prefline.errors import InputError
from prefline.provenance import dvc_stages, leftovers, metadata, records
from prefline.provenance.hashes import Hashes

DVC = """
stages:
  policies:
    deps: [data, scripts]
    outs:
    - results/models: {persist: true}
    - results/records/models: {persist: true}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(DVC)
    return tmp_path


def write(path, text="text"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def marker_of(output):
    return metadata.INCOMPLETE / base64.urlsafe_b64encode(str(output).encode()).decode()


def make(output, hashes, is_directory=False):
    """A result with a record."""
    output = records.RESULTS / output
    write(output / "weights" if is_directory else output)
    keys = ("rule", "input", "log", "shellcmd", "params", "code", "record_format_version")
    snakemake = {**{key: [] for key in keys}, "software_stack_hash": ""}
    record = {"inputs": {}, "data": {}, "seconds": 1.0, "packages": {}, "snakemake": snakemake}
    write(records.path_of(output), json.dumps({"sha256": hashes.of(str(output)), **record}))
    return output


def test_data_is_seen_below_the_deps_of_a_stage(folder):
    outside = write(folder / "outside/a.jsonl")
    for name in ("data", "scripts"):
        (folder / name).mkdir()
    (folder / "data/file.jsonl").symlink_to(outside)
    (folder / "data/linked").symlink_to(outside.parent)
    dvc_stages.check_seen(["data/own/a.jsonl", "scripts/a.py", "results/a", "data/file.jsonl"])
    for unseen in ("mine/reward.py", str(outside), "data/linked/a.jsonl"):
        with pytest.raises(InputError, match=f"^DVC would not see changes of {unseen}; add the file"):
            dvc_stages.check_seen(["data/own/a.jsonl", unseen])


def test_folders_that_a_rule_makes_are_not_made_empty(folder):
    """An empty results/metrics would have no record, and the next run would be refused."""
    dvc_stages.make_folders(lambda path: path == "results/models")
    assert not (folder / "results/models").exists() and (folder / "results/records/models").is_dir()
    dvc_stages.make_folders(lambda path: False)
    assert (folder / "results/models").is_dir()


def test_a_removed_run_is_swept_from_what_dvc_keeps(folder, monkeypatch):
    hashes = Hashes(folder / "hashes.json")
    gone = [make("models/old-1", hashes, is_directory=True), make("models/old-1.json", hashes)]
    kept = [make("models/dpo-1", hashes, is_directory=True), make("published/old-1.json", hashes)]
    stored = {str(path) for folder in gone for path in (folder, *folder.glob("*"))}
    monkeypatch.setattr(dvc_stages, "stored", lambda: stored)
    sentence = leftovers.sweep(lambda path: "dpo" in path)
    assert sentence.startswith(
        "removed 2 results that no rule makes under this config, with results/models/old-1;"
    )
    assert not any(path.exists() or records.path_of(path).exists() for path in gone)
    assert all(path.exists() and records.path_of(path).exists() for path in kept)
    assert leftovers.sweep(lambda path: "dpo" in path) == ""


def test_a_shell_of_a_directory_goes_and_the_directory_of_a_stage_stays(folder):
    write(folder / "results/models/shell/.snakemake_timestamp")
    write(folder / "results/models/whole/config.json")
    (folder / "results/adapters").mkdir()
    leftovers.drop_shells()
    assert sorted(os.listdir("results/models")) == ["whole"]
    assert (folder / "results/adapters").is_dir()


def test_a_mark_of_an_incomplete_file_goes_if_the_file_equals_its_record(folder):
    hashes = Hashes(folder / "hashes.json")
    whole, cut = make("models/whole.json", hashes), make("models/cut.json", hashes)
    cut.write_text("te")
    for output in (whole, cut):
        marker_of(output).parent.mkdir(parents=True, exist_ok=True)
        marker_of(output).touch()
    write(metadata.INCOMPLETE / ".nfs0001")
    leftovers.drop_markers(hashes)
    assert not marker_of(whole).exists()
    assert marker_of(cut).exists()

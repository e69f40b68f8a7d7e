"""A config key is written in three places: the edit that CONTRIBUTING.md shows works, and needs no fourth."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from project_copy import ROOT, copy_project, snakemake
from scored_shards import write_shard

from prefline import files
from prefline.data import tables

PLACES = {"config.yaml", "rules/schemas/config.schema.yaml", "scripts/rank/build_preferences.py"}
SAMPLES = Path("results/samples/sft")


def shown_edit():
    """Return the diff (str) in CONTRIBUTING.md."""
    page = MarkdownIt("commonmark").parse((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    (found,) = [token.content for token in page if token.type == "fence" and token.info == "diff"]
    return found


@pytest.fixture
def project(tmp_path):
    """The project's files with the key `rank.max_margin`."""
    directory = copy_project(tmp_path / "project")
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    subprocess.run(["git", "apply", "-"], input=shown_edit(), text=True, cwd=directory, check=True)
    after = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    differ = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {str(path.relative_to(directory)) for path in differ} == PLACES
    return directory


def plan(directory, overlay):
    """Return what Snakemake would run to make the start policy's pairs (str); overlay: str, of the config."""
    (directory / "mine.yaml").write_text(f"generate: {{num_completions: 2}}\n{overlay}", encoding="utf-8")
    words = ["-n", "-p", "--configfile", "mine.yaml", "--", str(SAMPLES / "preferences.parquet")]
    said = snakemake(directory, *words, check=False)
    return said.stdout + said.stderr


def command(planned):
    """Return the command (str) of the job that builds pairs."""
    (found,) = re.findall(
        r"exec (python -m scripts\.rank\.build_preferences .*?\.json)$", planned, re.M | re.S
    )
    return found


def kept(directory, command):
    """Return the prompts (list of str) of the train pairs that a command makes."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", command], cwd=directory, env=environment, check=True)
    pairs = tables.read_rows(directory / SAMPLES / "preferences.parquet", tables.PREFERENCES)
    return [row["prompt_id"] for row in pairs if row["split"] == "train"]


@pytest.mark.slow
def test_a_key_that_is_written_in_three_places_works_to_the_end(project):
    without = command(plan(project, ""))
    assert "--max-margin null" in without, "the value in config.yaml"
    limited = command(plan(project, "rank: {max_margin: 2.5}"))
    assert "--max-margin 2.5" in limited
    assert "config: rank.max_margin: -1" in plan(project, "rank: {max_margin: -1}"), "the schema's range"
    # Written only now: the workflow refuses files that no job of its own has made.
    for shard in ("test-00000", "train-00000"):
        write_shard(project / SAMPLES, shard, {"near": [0.0, 1.0], "far": [0.0, 3.0]}, reward="reward_model")
    assert kept(project, without) == ["near", "far"]
    assert kept(project, limited) == ["near"]
    counts = files.read_json(project / SAMPLES / "preferences.json")["splits"]["train"]
    assert (counts["kept"], counts["dropped"]["margin"]) == (1, 1)

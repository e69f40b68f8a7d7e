"""dvc.yaml says what the workflow says; `dvc repro` runs all of it, then only what an edit touches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, snakemake
from snakemake.utils import update_config

ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def run(directory, *command):
    process = subprocess.run(
        command, cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return process.stdout


def test_dvc_yaml_and_the_table_of_reruns_are_made_from_the_workflow(tmp_path):
    made = ["--dvc", str(tmp_path / "dvc.yaml"), "--reruns", str(tmp_path / "reruns.md")]
    run(ROOT, sys.executable, "-m", "scripts.describe_workflow", *made)
    for name, kept in (("dvc.yaml", "dvc.yaml"), ("reruns.md", "docs/reruns.md")):
        assert (tmp_path / name).read_text() == (ROOT / kept).read_text(), f"{kept} is old: make dvc.yaml"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_repro_runs_everything_once_then_what_an_edit_touches(project):
    config = yaml.safe_load((project / "config.yaml").read_text())
    update_config(config, yaml.safe_load((project / "tests/workflow/quick.yaml").read_text()))
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    (project / "dvc.yaml").write_text(run(project, sys.executable, "-m", "scripts.dvc_stages"))
    for command in (
        ["git", "init", "-q"],
        ["git", "add", "-A"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start"],
        ["dvc", "repro"],
    ):
        run(project, *command)
    assert (project / "results/winrate.png").is_file()
    assert "up to date" in run(project, "dvc", "status")
    assert "Nothing to be done" in snakemake(project, "-n", "results/winrate.png").stdout
    before = (project / "results/models/rebel-2.json").read_bytes()

    config["runs"]["dpo"]["beta"] = 0.3
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    changed = {line.split(":")[0] for line in run(project, "dvc", "status").splitlines() if line[:1].strip()}
    assert changed == {"train-dpo-1", "winrate", "vibe_check"}
    said = run(project, "dvc", "repro")
    assert "Running stage 'train-dpo-1'" in said
    for untouched in ("generate-sft", "rank-sft", "logps-sft-sft", "train-rebel-1", "models-sft"):
        assert f"Running stage '{untouched}'" not in said
    assert (project / "results/models/rebel-2.json").read_bytes() == before
    assert "up to date" in run(project, "dvc", "status")

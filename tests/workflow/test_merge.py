"""A run with adapters: trained, merged, recorded; another way to merge trains nothing."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import QUICK, snakemake

pytestmark = pytest.mark.long


def run(directory, into):
    """The names of the rules of the jobs that make a policy with four-bit weights and its manifest."""
    peft = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}
    overlay = {"runs": {"dpo": {"peft": peft | {"quantization": "nf4", "merge_into": into}}}}
    (directory / "mine.yaml").write_text(yaml.safe_dump(overlay))
    process = snakemake(directory, *QUICK, "mine.yaml", "--", "results/models/dpo-1.json")
    lines = process.stderr.splitlines() + process.stdout.splitlines()
    return {line.split()[-1].rstrip(":") for line in lines if line.startswith(("rule ", "localrule "))}


def test_adapters_are_trained_once_and_merged_as_asked(finished, tmp_path):
    directory = tmp_path / "copy"
    shutil.copytree(finished, directory, symlinks=True)
    shutil.rmtree(directory / "work")
    assert run(directory, "quantized") == {"train_adapter", "merge_adapter"}
    merged = json.loads((directory / "results/models/dpo-1/merge.json").read_text())
    assert merged["merge_into"] == "quantized"
    assert merged["quantized"]["mean_token"] < merged["original"]["mean_token"]
    assert run(directory, "quantized") == set()
    assert run(directory, "original") == {"merge_adapter"}
    told = subprocess.run(
        [sys.executable, "-m", "tools.lineage", "results/models/dpo-1.json"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "scripts/models/merge_adapter.py" in told and "scripts/train/train_policy.py" in told

"""A plan of many shards: no command names them all, and data is read once for its hash."""

import json
import re

import pytest
import yaml
from conftest import snakemake

SHARDS = 60


@pytest.mark.slow
def test_a_command_does_not_grow_with_the_shards_and_a_dry_run_keeps_hashes(project):
    """A shell takes 128 KB of command: 2,000 paths of shards, after all generation was paid for."""
    overlay = {"prompts": {"num_prompts": SHARDS, "num_test_prompts": 1, "shard_size": 1}}
    overlay["runs"] = {"online": {"method": "rloo", "iterations": 1, "init": "previous"}}
    overlay["runs"]["online"] |= {"reference": "initial", "data": "all", "global_batch_size": 8}
    (project / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    said = snakemake(project, "-n", "-p", "--configfile", "overlay.yaml").stdout
    commands = re.findall(r"exec (?:python -m (?!tee)).*?(?=\n\n|\n\[|\Z)", said, re.S)
    assert len(commands) > SHARDS
    for command in commands:
        assert len(set(re.findall(r"train-\d{5}", command))) <= 1, command
    models = yaml.safe_load((project / "config.yaml").read_text())["models"]
    known = json.loads((project / ".snakemake/prefline_hashes.json").read_text())
    assert models["sft"]["eval_data"] in known, "which only the plan asks for"

"""The named targets of policies (`prompts_sft`) and of DVC's stages ask for what the workflow needs."""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, copy_project
from snakemake.utils import update_config

from prefline.provenance import records

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
TARGETS = {"prompts": "prompts", "completions": "generate", "rewards": "rewards", "ref_logps": "logps"}
PIECE = re.compile(r"results/samples/([^/]+)/(prompts|completions|rewards|ref_logps)/(?:([^/]+)/)?[^/]+")
ONLINE = {"method": "rloo", "iterations": 3, "init": "previous", "reference": "initial", "data": "all"}
JUDGE = {
    **{
        "kind": "judge",
        "endpoint": "own",
        "rubric": "data/rubric.txt",
        "lowest": 1,
        "highest": 10,
        "max_tokens": 16,
    },
    **{"weight": 1.0, "normalize": "none"},
}
OWN = {"own": {"kind": "vllm", "model": "sft"}}
SMALL = ("dagster-dpo", "hf-dpo-2024", "hf-rlhf-2023", "rebel", "online-rlhf", "first_day", "eight_billion")
CONFIGS = {
    "default": [],
    "quick": ["tests/workflow/quick.yaml"],
    **{name: [f"recipes/{name}.yaml", "recipes/small.yaml"] for name in SMALL},
    "six_losses": ["recipes/six_losses.yaml"],
    "best_of_n": ["recipes/best_of_n.yaml"],
    "four_methods": ["recipes/four_methods.yaml"],
    "verifiable": ["recipes/verifiable.yaml", "recipes/sums.yaml"],
    "online iterations": [{"runs": {"dpo": None, "rebel": None, "own": ONLINE}}],
    "given pairs": [{"runs": {"own": ONLINE}, "prompts": {"preferences": {"use": True}}}],
    "several rewards": [{"rewards": {"judge": JUDGE}, "endpoints": OWN, "logps": {"num_shards": 3}}],
}


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """{name of a config: what targets.py says of it}, in a folder without results."""
    overlays = []
    for parts in CONFIGS.values():
        overlay = {}
        for part in parts:
            read = part if isinstance(part, dict) else yaml.safe_load((ROOT / part).read_text())
            update_config(overlay, read)
        if "recipes/sums.yaml" not in parts:
            overlay.pop("benchmarks", None)  # their files are not in the repository
        overlays.append(json.dumps(overlay))
    said = subprocess.run(
        [sys.executable, "tests/workflow/targets.py"],
        cwd=copy_project(tmp_path_factory.mktemp("targets")),
        input="\n".join(overlays),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return dict(zip(CONFIGS, map(json.loads, said.splitlines()), strict=True))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.slow
def test_a_policys_targets_ask_for_what_the_workflow_needs_of_it(described, name):
    made = defaultdict(list)
    for path in described[name]["made"]:
        if found := PIECE.fullmatch(path):
            policy, step, reference = found.groups()
            words = [TARGETS[step], policy, *([reference] if step == "ref_logps" else [])]
            made["_".join(words).replace("-", "_")].append(path)
    targets = described[name]["targets"]
    asked = {target: files for target, files in targets.items() if files and PIECE.fullmatch(files[0])}
    assert asked == made


def stage_of(path):
    """The stages of dvc.yaml whose files include `path`."""
    parts = [str(Path(path)), *map(str, Path(path).parents)]
    return [name for name, stage in STAGES.items() for out in stage["outs"] for part in parts if part in out]


@pytest.mark.parametrize("name", CONFIGS)
def test_dvc_keeps_every_file_and_its_record_in_one_stage_whose_command_makes_it(described, name):
    for path in described[name]["made"]:
        (stage,) = stage_of(path)
        assert STAGES[stage]["cmd"].endswith(f"snakemake -- {stage}")
        assert path in described[name]["for"][stage]
        assert stage_of(records.path_of(path)) == [stage]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_file_that_dvc_wants_of_a_stage_is_made(described, name):
    """Folders that may stay empty are made by the command itself."""
    paths = [Path(path) for path in described[name]["made"]]
    paths += map(records.path_of, described[name]["made"])
    made = {parent for path in paths for parent in (path, *path.parents)}
    for stage in STAGES.values():
        wanted = {Path(path) for out in stage["outs"] for path in out}
        assert wanted - made <= set(map(Path, stage["cmd"].split()))


def test_a_stage_sees_the_whole_config_all_data_and_all_code():
    code = {"data", "recipes", "Snakefile", "rules", "scripts", "prefline"}
    for stage in STAGES.values():
        assert code <= set(stage["deps"])
        assert stage["params"] == [{"config.yaml": None}, {"params.yaml": None}]
        assert all(options == {"persist": True} for out in stage["outs"] for options in out.values())

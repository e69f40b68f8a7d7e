"""The named targets of policies (`prompts_sft`), which DVC's stages call, ask for what the workflow needs."""

import json
import re
import subprocess
import sys
from collections import defaultdict

import pytest
import yaml
from conftest import ROOT, copy_project
from snakemake.utils import update_config

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
PUBLISHED = ("dagster-dpo", "hf-dpo-2024", "hf-rlhf-2023", "rebel", "online-rlhf")
CONFIGS = {
    "default": [],
    "quick": ["tests/workflow/quick.yaml"],
    **{name: [f"recipes/{name}.yaml", "recipes/small.yaml"] for name in PUBLISHED},
    "six_losses": ["recipes/six_losses.yaml"],
    "four_methods": ["recipes/four_methods.yaml"],
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


@pytest.mark.parametrize("name", CONFIGS)
def test_a_stages_command_makes_all_that_its_jobs_make(described, name):
    stages = described[name]["stages"].items()
    left_out = {stage: set(its) - set(run) for stage, (its, run) in stages}
    assert not any(left_out.values()), left_out

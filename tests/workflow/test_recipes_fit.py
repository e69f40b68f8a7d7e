"""The command at the top of each recipe fits the machine that it names, with models of their real sizes."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, snakemake

sys.path.insert(0, str(ROOT / "tests/helpers"))
import large_models

COMMAND = re.compile(r"^#     snakemake (.* machines/(\w+)\.yaml)$", re.MULTILINE)
COMMANDS = {path.stem: COMMAND.search(path.read_text()) for path in sorted((ROOT / "recipes").glob("*.yaml"))}
COMMANDS = {name: found for name, found in COMMANDS.items() if found}
# Shapes by a part of the models' names on the hub.
SHAPES = {
    "8B": large_models.LLAMA_8B,
    "SFT-v2": large_models.LLAMA_8B,
    "FsfairX": large_models.LLAMA_8B,
    "32B": large_models.QWEN_32B,
    "1.5B": large_models.QWEN_15B,
    "2.5-7B": (3584, 28, 28, 4, 18944, 152064),
    "mistral-7b": (4096, 32, 32, 8, 14336, 32002),
    "0.6B": (1024, 28, 16, 8, 3072, 151936),
    "opt-350m": (1024, 24, 16, 16, 2730, 50272),
    "gpt2": (768, 12, 12, 12, 2048, 50257),
}


def pretend_fetched(hub, recipe):
    """Write all models of a recipe's hub into a folder as the hub's cache has them."""
    for model in yaml.safe_load(recipe.read_text())["models"].values():
        source = (model or {}).get("source") or ""
        if source.startswith("hub:"):
            repository, revision = source.removeprefix("hub:").split("@")
            (shape,) = {shape for part, shape in SHAPES.items() if part in repository}
            large_models.write(
                hub / f"models--{repository.replace('/', '--')}" / "snapshots" / revision, shape
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_recipe_fits_the_machine_of_its_command(project, tmp_path, monkeypatch, name):
    arguments, machine = COMMANDS[name].groups()
    pretend_fetched(tmp_path / "hub", ROOT / "recipes" / f"{name}.yaml")
    gpus = yaml.safe_load(Path(ROOT, "machines", f"{machine}.yaml").read_text())["machine"]["gpus"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    said = snakemake(project, "-n", *arguments.split()).stdout
    assert "mem_mb=<TBD>" not in said and "rule train" in said

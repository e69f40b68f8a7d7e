"""docs/recipes_differences.md says what the recipes do; each is a valid config, also with the small world."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from snakemake.utils import update_config

from prefline.config import loading as configuration

# All files that are overlays of config.yaml.
RECIPES = sorted(path.stem for path in Path("recipes").glob("*.yaml"))
PUBLISHED = ("dagster-dpo", "hf-dpo-2024", "hf-rlhf-2023", "rebel", "online-rlhf")
OURS = ("first_day", "eight_billion")
# Recipes whose table has only the rows that differ from another's: {name: (the other, what it does not set)}.
LIKE = {"hf-dpo-2024": ("dagster-dpo", "publish.name")}
ROW = re.compile(r"\| [^|]*\| `(?P<key>[a-z0-9_.]+)` \| `(?P<value>[^`]+)` \|")


def read(path):
    return yaml.safe_load(Path(path).read_text())


def merged(*overlays):
    """The config with overlays over it, as Snakemake merges them."""
    config = read("config.yaml")
    for overlay in overlays:
        update_config(config, read(overlay))
    return config


def table(name):
    """{key: value} of a recipe's table in the docs; mappings, and overlays that it names, by their keys."""
    text = Path("docs/recipes_differences.md").read_text()
    section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
    rows = [ROW.match(line) for line in section.splitlines() if line.startswith("|")]
    said = {}
    if name in LIKE:
        like, unset = LIKE[name]
        assert f"[{like}](#{like}), without `{unset}`" in section
        said = {key: value for key, value in table(like).items() if key != unset}
    for row in filter(None, rows):
        value = yaml.safe_load(row["value"])
        overlay = re.fullmatch(r"recipes/\w+\.yaml", str(value))
        said |= leaves(read(value) if overlay else value, "" if overlay else row["key"])
    return said


def leaves(value, path=""):
    """{key: value} of everything in a section that is no section itself."""
    if not isinstance(value, dict):
        return {path: value}
    found = {}
    for key, inner in value.items():
        found |= leaves(inner, f"{path}.{key}" if path else key)
    return found


def found(config, key):
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_says_what_the_recipe_does(name):
    config = merged(f"recipes/{name}.yaml")
    for key, value in table(name).items():
        assert found(config, key) == value, key


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_value_of_a_recipe_is_missing_in_its_table(name):
    said = table(name)
    assert leaves(read(f"recipes/{name}.yaml")).keys() <= said.keys()


@pytest.mark.parametrize("name", [*PUBLISHED, *OURS])
@pytest.mark.parametrize("overlays", [[], ["recipes/small.yaml"]], ids=["published", "small"])
def test_a_recipe_is_a_valid_config(name, overlays):
    files = [f"recipes/{name}.yaml", *overlays]
    config = configuration.load(merged(*files), [*files, "config.yaml"])
    assert config["runs"]


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_depends_on_a_model_of_a_service(name):
    """A service ends its models. A recipe asks an open one, which the job serves or the user."""
    for endpoint in (read(f"recipes/{name}.yaml").get("endpoints") or {}).values():
        hosts = {urlsplit(url).hostname for url in endpoint.get("urls", [])}
        assert endpoint["kind"] == "vllm" or hosts == {"127.0.0.1"}


def test_the_small_world_changes_nothing_that_shapes_how_a_policy_is_trained():
    """Models, data and sizes only: a recipe's method, loss and optimizer are what CI runs."""
    small = read("recipes/small.yaml")
    assert not {"runs", "train", "rank", "rewards", "tokenize", "seed"} & small.keys()
    assert small["logps"] == {"num_shards": 1} and small["online"].keys() == {"max_completion_length"}
    assert small["generate"].keys() == {"max_tokens", "vllm"}


@pytest.mark.parametrize("name", [*PUBLISHED, *OURS])
def test_a_header_says_what_is_reproduced_what_it_costs_and_how_to_run_it(name):
    text = Path(f"recipes/{name}.yaml").read_text()
    header = text[: text.index("\n\n")]
    assert "make .venv DEVICE=cuda" in header
    assert f"snakemake results/winrate.png --configfile recipes/{name}.yaml machines/" in header
    pages = ["docs/gpu.md"] if name in OURS else ["Published", "docs/recipes_differences.md"]
    for word in ("Costs about", *pages):
        assert word in header


@pytest.mark.parametrize("name", OURS)
def test_our_own_recipes_name_every_version(name):
    """No published system sets these, so nothing is left to a branch that moves."""
    found = [value for value in leaves(read(f"recipes/{name}.yaml")).values() if "hub:" in str(value)]
    assert len(found) == 4
    assert all(re.search(r"@[0-9a-f]{40}(#|$)", source) for source in found)

"""Links of the pages lead somewhere, the site has every page, the configuration's reference every key."""

import itertools
import posixpath
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from mdit_py_plugins.anchors.index import slugify

from docs import api_reference, config_reference
from prefline.config import schema
from prefline.training import methods
from tools import lock_envs

PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md"]
PAGES += sorted(map(str, Path("docs").glob("*.md")))
CITATION = yaml.safe_load(Path("CITATION.cff").read_text(encoding="utf-8"))


def tokens(page):
    text = Path(page).read_text(encoding="utf-8")
    if page == "docs/config.md":
        text += config_reference.markdown()
    return MarkdownIt("commonmark").enable("table").parse(text)


def anchors(page):
    """The anchors of a page's headings, as GitHub and the site make them; a second of one name has -1."""
    parsed, found = tokens(page), []
    for mark, inline in itertools.pairwise(parsed):
        if mark.type == "heading_open":
            shown = [part.content for part in inline.children if part.type in ("text", "code_inline")]
            slug = slugify("".join(shown))
            found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


def links(page):
    """What a page links to or shows, but addresses of other sites: list of str."""
    found = []
    for top in tokens(page):
        found += re.findall(r'<img src="([^"]+)"', top.content if top.type.startswith("html") else "")
        for token in top.children or []:
            found += [token.attrs[name] for name in ("href", "src") if name in token.attrs]
            found += re.findall(r'<img src="([^"]+)"', token.content if token.type == "html_inline" else "")
    return [link for link in found if not re.match(r"\w+:", link)]


def is_dead(page, link):
    path, _, anchor = link.partition("#")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page
    return not Path(target).exists() or (anchor != "" and anchor not in anchors(target))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    assert [link for link in links(page) if is_dead(page, link)] == []


def test_a_dead_link_is_found():
    assert is_dead("README.md", "docs/nowhere.md")
    assert is_dead("README.md", "docs/ranking.md#nowhere")
    assert not is_dead("docs/losses.md", "ranking.md#win-probabilities")
    assert links("README.md") and any(link.endswith(".png") for link in links("README.md"))


def toctree(page):
    """The pages that a page of the site has in its toctrees, as Sphinx names them."""
    entries = [
        line
        for token in tokens(page)
        if token.type == "fence" and token.info == "{toctree}"
        for line in token.content.splitlines()
        if line and not line.startswith(":")
    ]
    return [re.sub(r".*<(.*)>", r"\1", entry) for entry in entries]


def test_every_page_is_in_the_site_once():
    inside = toctree("docs/index.md") + toctree("docs/library.md")
    pages = [path.stem for path in Path("docs").glob("*.md") if path.stem != "index"]
    assert sorted(entry for entry in inside if not entry.startswith("api/")) == sorted([*pages, "self"])
    made = {*api_reference.library_pages(), "scripts", "tools", "measurements"}
    assert {entry for entry in inside if entry.startswith("api/")} == {f"api/{name}" for name in made}


def test_the_tree_has_every_folder():
    tracked = subprocess.check_output(["git", "ls-files"], text=True).splitlines()
    folders = {name.split("/")[0] + "/" for name in tracked if "/" in name and not name.startswith(".")}
    for inside in ("rules", "scripts", "prefline"):
        folders |= {
            f"{path.name}/" for path in Path(inside).iterdir() if path.name != "__pycache__" and path.is_dir()
        }
    shown = re.split(r"\s+", Path("docs/tree.md").read_text(encoding="utf-8"))
    assert sorted(folders - set(shown)) == []


def schema_keys(schema):
    """Every name that a property has anywhere in a schema: set of str."""
    if isinstance(schema, list):
        return set().union(*map(schema_keys, schema))
    if not isinstance(schema, dict):
        return set()
    named = schema.get("properties", {})
    return set(named).union(*map(schema_keys, [*named.values(), *schema.values()]))


def config_paths(section, path=()):
    """The path of every value in a config, sections included."""
    for key, value in section.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from config_paths(value, (*path, key))


KEYS = {key.path: key for found in config_reference.everything().values() for key in found}


def test_every_key_of_the_schema_is_in_the_reference():
    named = {path.rsplit(".", 1)[-1] for path in KEYS}
    # Sections whose names stand in the text of `models`.
    assert schema_keys(schema.whole()) - named == {"base", "sft", "reward_model"}
    assert all(key.schema.get("description") for key in KEYS.values())


def test_every_value_of_the_config_is_in_the_reference():
    config = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))
    missing = []
    for path in config_paths(config):
        section, *rest = path
        named = section in ("models", "rewards", "runs")
        shown = ".".join([section, "NAME", *rest[1:]] if named and rest else path)
        overridden = section == "runs" and any(f"{name}.{path[-1]}" in KEYS for name in ("train", "online"))
        parent = KEYS.get(shown.rpartition(".")[0])
        # A section's name is no key, nor is what stands in a section of texts or numbers, columns say.
        is_name = (named and len(rest) == 1) or (parent and "properties" not in parent.schema)
        if not (shown in KEYS or overridden or is_name):
            missing.append(shown)
    assert missing == []


def test_the_page_names_every_key_that_the_config_does_not_show():
    page = Path("docs/config.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    missing = []
    for path, key in KEYS.items():
        section, _, name = path.rpartition(".")
        section = section.removesuffix(".peft")
        if key.defaults or "properties" in key.schema or section.startswith("machine.rules"):
            continue
        if not any(f"`{section}`" in named and f"`{name}`" in keys for named, keys in rows):
            missing.append(path)
    assert missing == []


def test_the_page_has_the_hyperparameters_of_each_method():
    config = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))
    page = Path("docs/online.md").read_text(encoding="utf-8")
    rows = [re.split(r" *\| *", line)[1:-1] for line in page.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0].startswith(("`train.", "`online."))]
    found = {method: set() for method in methods.HYPERPARAMETERS}
    for key, default, *used in rows:
        section, name = key.strip("`").split(".")
        assert yaml.safe_load(default) == config[section][name], key
        for method, mark in zip(("kto", "rloo", "grpo", "ppo"), used, strict=False):
            found[method] |= {name} if mark == "yes" else set()
    assert found == {method: set(names) for method, names in methods.HYPERPARAMETERS.items()}


@pytest.mark.parametrize(
    "path, kind, default",
    [
        ("seed", "integer ≥ 0", "`1`"),
        ("train.beta", "number ≥ 0", "`0.1`"),
        ("train.eval_steps", "integer ≥ 1 or null", "`null`"),
        ("generate.top_p", "number > 0 and ≤ 1", "`1.0`"),
        ("rank.truncated", "drop, keep_as_rejected or keep", "`drop`"),
        ("models.NAME.init", "text", "`start` (base), `base` (sft), `base` (reward_model)"),
        ("rewards.NAME.weight", "number", "`1.0` (reward_model)"),
        ("runs.NAME.iterations", "integer ≥ 1 and ≤ 999", "`1` (dpo), `2` (rebel)"),
        ("endpoints.NAME.max_cost", "number ≥ 0", None),
        ("train.peft.r", "integer ≥ 1", None),
    ],
)
def test_type_range_and_default_of_a_key(path, kind, default):
    assert config_reference.type_of(KEYS[path].schema) == kind
    assert config_reference.default_of(KEYS[path]) == default


def test_a_docstring_is_shown_as_it_stands():
    docstring = """One `beta` and *stars*, of a_ and |x|.

    β(c + r)

    of one block

- a list, whose item
  goes on
- another
and what follows:
    python -m scripts.NAME"""
    shown = re.sub(r"\n{2,}", "\n\n", "\n".join(api_reference.rest(docstring)))
    assert shown == (
        "One \\ ``beta``\\  and \\*stars\\*, of a\\_ and \\|x\\|.\n\n"
        "::\n\n    β(c + r)\n\n    of one block\n\n"
        "- a list, whose item\n  goes on\n\n- another\n\nand what follows\\:\n\n"
        "::\n\n    python -m scripts.NAME\n"
    )


def test_the_version_is_the_changelogs():
    said = re.findall(r"^## \[?([\d.]+)\]? - (\S+)$", Path("CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert said[0] == (CITATION["version"], str(CITATION["date-released"]))


@pytest.mark.parametrize(
    "path", [*Path(".github").rglob("*.y*ml"), *Path(".").glob(".*.y*ml"), Path("CITATION.cff")], ids=str
)
def test_files_for_others_programs_are_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_hooks_have_the_versions_of_the_lock():
    hooks = yaml.safe_load(Path(".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    pins = {pin for hook in hooks for pin in hook["additional_dependencies"]}
    assert {hook["entry"].split()[0] for hook in hooks} == {"ruff", "snakefmt"}
    assert pins <= set(lock_envs.lock())

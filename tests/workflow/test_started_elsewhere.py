"""Snakemake started from another folder, as a module, and with groups: it works, or is refused."""

import re

import pytest
from project_copy import copy_project, planned, snakemake

pytestmark = pytest.mark.slow

MODULE = """
module prefline:
    snakefile: "{project}/Snakefile"
use rule * from prefline
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("elsewhere") / "project")


@pytest.mark.parametrize("way", ["directory", "snakefile", "module"])
def test_another_folder_is_one_sentence(project, tmp_path, way):
    (tmp_path / "config.yaml").write_bytes((project / "config.yaml").read_bytes())
    flags = {
        "directory": ["--snakefile", f"{project}/Snakefile", "--directory", str(tmp_path)],
        "snakefile": ["--snakefile", f"{project}/Snakefile"],
        "module": [],
    }[way]
    (tmp_path / "Snakefile").write_text(MODULE.format(project=project))
    process = snakemake(tmp_path, "-n", *flags, check=False)
    assert process.returncode
    said = process.stdout + process.stderr
    assert f"run Snakemake in the project's folder, where its rules find their files: cd {project}" in said


def test_its_own_folder_may_be_named_from_elsewhere(project, tmp_path):
    (tmp_path / "link").symlink_to(project)
    flags = ["--snakefile", f"{tmp_path}/link/Snakefile", "--directory", f"{tmp_path}/link"]
    assert planned(tmp_path, "results/models/base.json", *flags).keys() >= {"pretrain"}


def test_the_profile_with_groups_plans_the_documented_target(project):
    """Shards of two policies are never in one group: the training between them would be outside of it."""
    flags = [
        "--profile",
        "slurm",
        "--profile",
        "profiles/grouped",
        "--configfile",
        "tests/workflow/quick.yaml",
    ]
    jobs = planned(project, "results/winrate.png", *flags)
    assert jobs["generate_completions"] > 1 and jobs["compute_winrate"] == 1


def test_a_runtime_of_the_config_comes_before_that_of_the_profile_with_groups(project, tmp_path):
    overlay = tmp_path / "machine.yaml"
    overlay.write_text("machine: {rules: {generate_completions: {runtime: 45}}}")
    profiles = ["--profile", "slurm", "--profile", "profiles/grouped"]
    files = ["--configfile", "tests/workflow/quick.yaml", str(overlay)]
    said = snakemake(project, "-n", *profiles, *files, "--", "results/winrate.png").stdout
    asked = re.findall(r"^ +rule (\w+):\n(?: +.*\n)*? +resources: .*?\bruntime=(\d+)", said, re.M)
    assert {("generate_completions", "45"), ("score_completions", "30")} <= set(asked)
    assert {minutes for rule, minutes in asked if rule == "generate_completions"} == {"45"}

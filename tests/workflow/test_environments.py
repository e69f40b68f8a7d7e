"""`snakemake --sdm conda` makes the rules' own environments, runs the rules in them, and sees their edits."""

import contextlib
import platform
import re
import shutil
import sys
from pathlib import Path

import pytest
import small_conda
import yaml
from conftest import QUICK, copy_project, snakemake

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() != "x86_64",
        reason="the environments are locked for Linux on x86-64",
    ),
]
RUN_IN = {
    "data": {
        "check_data",
        "check_model",
        "prepare_prompts",
        "sample_prompts",
        "build_preferences",
        "tokenize_preferences",
        "write_model_card",
    },
    "generate": {"generate_completions", "answer_mt_bench", "answer_vibe_check"},
    "score": {"fetch_model", "score_completions", "compute_ref_logps", "judge_mt_bench", "measure_drift"},
    "train": {"pretrain", "train_sft", "train_reward_model", "train_policy"},
    "report": {
        "plot_rewards",
        "plot_training",
        "compute_winrate",
        "plot_winrate",
        "plot_drift",
        "write_vibe_check",
        "write_report",
    },
}
# What reads the win rates.
AFTER_WINRATE = {"plot_winrate", "plot_drift", "write_report", "write_model_card"}
# What starts a rule's script is no rule's.
STARTERS = {"launch", "lease_gpus"}


def conda_run(directory, *arguments):
    """Run Snakemake with --sdm conda; all that it said."""
    process = snakemake(directory, *QUICK, "one_run.yaml", "--sdm", "conda", *arguments)
    return process.stdout + process.stderr


def planned(directory, *arguments):
    """{rule: why} that Snakemake would run in the environments."""
    said = conda_run(directory, "-n", *arguments)
    jobs = re.findall(r"^rule (\w+):\n((?: .*\n)*)", said, re.M)
    assert jobs or "Nothing to be done" in said
    reasons = {}
    for rule, text in jobs:
        reasons[rule] = reasons.get(rule, "") + re.search(r"reason: (.*\n)", text)[1]
    reasons.pop("all", None)
    return reasons


def scripts_run(directory):
    """{text of the environment file: scripts of the project that its interpreter ran}."""
    ran = {}
    for file in (directory / ".snakemake/conda").glob("*.yaml"):
        notes = (file.with_suffix("") / "ran.txt").read_text()
        ran[file.read_text()] = set(re.findall(r"-m scripts\.(\w+)", notes)) - STARTERS
    return ran


@contextlib.contextmanager
def another_pip(file):
    """The environment file asks for another pip; afterwards for the old one again."""
    text = file.read_text()
    file.write_text(re.sub(r"  - pip=.*", "  - pip=99.0", text))
    yield
    file.write_text(text)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project with the whole chain run in its environments, made by the small conda.

    The channel has one more pip than the environments ask for.
    """
    python, pip = yaml.safe_load(Path("envs/cpu/report.yaml").read_text())["dependencies"][:2]
    versions = {"python": [python.split("=")[1]], "pip": [pip.split("=")[1], "99.0"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", small_conda.set_up(tmp_path_factory.mktemp("conda"), versions))
        directory = copy_project(tmp_path_factory.mktemp("project"))
        (directory / "one_run.yaml").write_text("runs: {rebel: null}")
        conda_run(directory)
        yield directory


def test_every_rule_runs_in_the_environment_of_its_kind(project):
    ran = scripts_run(project)
    assert ran == {(project / f"envs/cpu/{name}.yaml").read_text(): rules for name, rules in RUN_IN.items()}
    assert planned(project) == {}


def test_an_edit_of_an_environment_runs_its_rules_again_in_the_new_one(project):
    file = project / "envs/cpu/report.yaml"
    with another_pip(file):
        assert set(planned(project)) == RUN_IN["report"] | AFTER_WINRATE
        assert "Software environment" in planned(project)["compute_winrate"]
        conda_run(project)
        assert scripts_run(project)[file.read_text()] == RUN_IN["report"]
        assert planned(project) == {}
    assert set(planned(project)) == RUN_IN["report"] | AFTER_WINRATE
    conda_run(project)
    assert planned(project) == {}


def test_a_clone_in_another_folder_has_nothing_to_do(project, tmp_path):
    """Snakemake's hash of an environment holds its folder; what travels is the environment's text."""
    clone = copy_project(tmp_path / "clone")
    shutil.copy(project / "one_run.yaml", clone)
    shutil.copytree(project / "results", clone / "results", symlinks=True)
    assert planned(clone) == {}
    with another_pip(clone / "envs/cpu/report.yaml"):
        assert set(planned(clone)) == RUN_IN["report"] | AFTER_WINRATE


def test_an_edit_of_the_generation_environment_trains_no_start_policy(project):
    with another_pip(project / "envs/cpu/generate.yaml"):
        assert "Software environment" in planned(project)["generate_completions"]
        assert not planned(project).keys() & {
            "pretrain",
            "train_sft",
            "train_reward_model",
            "prepare_prompts",
        }


def test_a_rule_that_is_given_a_gpu_gets_the_cuda_environment(project):
    others = ["pretrain", "train_sft", "train_reward_model", "train_policy", "generate_completions"]
    others += ["score_completions", "compute_ref_logps", "answer_mt_bench", "answer_vibe_check"]
    others += ["measure_drift"]
    none = [f"{rule}:gpu=0" for rule in others]
    gpu = ["--resources", "gpu=1", "--set-resources", "judge_mt_bench:gpu=1", *none]
    assert set(planned(project, *gpu)) == {"judge_mt_bench", "compute_winrate", *AFTER_WINRATE}
    assert "envs/cuda/score.yaml" in conda_run(project, "-n", *gpu)

"""Experiments in one clone: they share what is equal, keep each other's results, and can be compared."""

import base64
import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import QUICK, planned, snakemake

RUN = {"iterations": 1, "init": "initial", "reference": "initial", "data": "current"}
MODELS = {"experiment": "models", "runs": {}, "evaluate": ["base"]}
COLD = {"experiment": "cold"}
HOT = {"experiment": "hot", "runs": {"dpo": None, "rebel": None, "dpo_hot": {**RUN, "beta": 0.5}}}


@pytest.fixture
def given(finished, tmp_path):
    """given(overlay) -> flags of Snakemake in a copy of the finished project, whose folder is given.copy."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, symlinks=True)

    def write(overlay, *targets):
        path = copy / f"{overlay.get('experiment', 'plain')}.yaml"
        path.write_text(yaml.safe_dump(overlay))
        return [*QUICK, path.name, "--", *targets]

    write.copy = copy
    return write


@pytest.mark.slow
def test_a_plan_without_runs_evaluates_models(project):
    (project / "models.yaml").write_text(yaml.safe_dump(MODELS))
    assert planned(project, "--configfile", "models.yaml") == {
        **{
            "check_data": 3,
            "check_model": 1,
            "fetch_model": 1,
            "pretrain": 1,
            "train_sft": 1,
            "plot_training": 2,
        },
        **{"answer_mt_bench": 2, "judge_mt_bench": 1, "compute_winrate": 1, "plot_winrate": 1},
        **{"answer_vibe_check": 2, "write_vibe_check": 1, "write_config": 1, "write_report": 1},
    }
    (project / "sft.yaml").write_text("runs: {}")
    said = snakemake(project, "-n", "results/winrate.png", "--configfile", "sft.yaml", check=False)
    assert "nothing is compared with sft, so there is no win rate; add a run" in said.stdout + said.stderr


@pytest.mark.slow
def test_names_that_would_be_taken_for_others_are_refused(project):
    (project / "match.yaml").write_text(yaml.safe_dump({"evaluate": ["base"], "runs": {"base_vs_dpo": RUN}}))
    said = snakemake(project, "-n", "--configfile", "match.yaml", check=False)
    told = "base_vs_dpo-1 is a policy, and the name of the match of base and dpo-1"
    assert told in said.stdout + said.stderr
    (project / "hot.yaml").write_text(yaml.safe_dump(HOT))
    for flags, named in (((), "experiment: null"), (("--configfile", "hot.yaml"), "experiment: hot")):
        said = snakemake(project, "-n", "results/experiments/cold/winrate.png", *flags, check=False)
        told = f"is of the experiment cold, and the config has {named};"
        assert told in said.stdout + said.stderr


@pytest.mark.slow
def test_a_plan_of_a_sweep_shares_all_but_trainings(project):
    sweep = {"beta": [0.05, 0.5], "learning_rate": [1e-4, 2e-4]}
    (project / "sweep.yaml").write_text(yaml.safe_dump({"runs": {"rebel": None, "dpo": {"sweep": sweep}}}))
    found = planned(project, "mt_bench", "--configfile", "sweep.yaml")
    assert found["train_policy"] == found["judge_mt_bench"] == 4
    assert found["plot_sweeps"] == 1 and found["build_preferences"] == found["compute_ref_logps"] == 1


@pytest.mark.slow
def test_each_experiment_has_its_own_file_for_fastchat(project):
    target = "mt_bench/model_judgment/reference_pair.jsonl"
    for overlay, folder in ((COLD, "results/experiments/cold"), ({}, "results")):
        (project / "mine.yaml").write_text(yaml.safe_dump(overlay))
        found = planned(project, f"{folder}/{target}", "--configfile", "mine.yaml")
        assert found["merge_judgments"] == 1


@pytest.mark.slow
def test_models_are_evaluated_without_runs(project):
    (project / "models.yaml").write_text(yaml.safe_dump(MODELS))
    flags = [*QUICK, "models.yaml"]
    snakemake(project, *flags)
    folder = project / "results/experiments/models"
    made = json.loads((folder / "winrate.json").read_text())
    assert made["policies"] == ["base"] and made["start"] == "sft"
    page = (folder / "report.html").read_text()
    assert "1 policy, compared with sft" in page and "There is no run." in page
    assert "base" in (folder / "vibe_check.md").read_text()
    assert not (folder / "drift.png").exists() and planned(project, *flags) == {}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_sweep_runs_to_its_picture_and_report(given):
    sweep = {"beta": [0.05, 0.5], "learning_rate": [1e-4, 2e-4]}
    flags = given({"experiment": "sweep", "runs": {"rebel": None, "dpo": {"sweep": sweep}}})
    snakemake(given.copy, *flags)
    folder = given.copy / "results/experiments/sweep"
    made = json.loads((folder / "winrate.json").read_text())
    assert len(made["policies"]) == 4 and "dpo_beta_0p05_learning_rate_0p0001-1" in made["policies"]
    picture = base64.b64encode((folder / "mt_bench/sweeps.png").read_bytes()).decode()
    assert picture in (folder / "report.html").read_text()
    assert planned(given.copy, *flags) == {}


@pytest.mark.slow
def test_two_experiments_share_what_is_equal_and_are_compared(given):
    copy, cold = given.copy, given(COLD, "results/experiments/cold/winrate.png")
    of_results = {"compute_winrate": 1, "plot_winrate": 1, "write_config": 1}
    assert planned(copy, *cold) == of_results, "the policies are those without a name"
    snakemake(copy, *cold)
    hot = given(HOT, "results/experiments/hot/winrate.png")
    of_policy = {"train_policy": 1, "answer_mt_bench": 1, "judge_mt_bench": 1}
    assert planned(copy, *hot) == {**of_policy, **of_results}
    snakemake(copy, *hot)
    assert planned(copy, *cold) == {}
    assert (copy / "results/winrate.png").exists(), "the results without a name stay"

    process = subprocess.run(
        [sys.executable, "-m", "tools.compare", "cold", "hot"],
        cwd=copy, env={**os.environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    table = (copy / "results/experiments/cold_vs_hot.md").read_text()
    assert table in process.stdout
    assert "| dpo_hot-1 | hot |" in table and "| dpo-1 | cold |" in table and "| dpo-1 | dpo_hot-1 |" in table
    assert "| runs.dpo_hot |  | {beta: 0.5, " in table and "machine" not in table
    assert (copy / "results/experiments/cold_vs_hot.png").read_bytes()[:4] == b"\x89PNG"

    clash = {"runs": {"dpo": {"beta": 0.5}}}
    for overlay, name in ((clash, "this config"), (clash | {"experiment": "clash"}, "the experiment clash")):
        said = snakemake(copy, "-n", *given(overlay, "policies", "mt_bench"), check=False)
        assert said.returncode != 0
        assert (
            f"{name} would replace dpo-1, from which the results of the experiment cold are made"
            in said.stdout + said.stderr
        )
    said = snakemake(copy, "-n", *given(HOT, "results/winrate.png"), check=False)
    assert (
        "experiment: hot, which makes results/experiments/hot/winrate.png; ask for that"
        in said.stdout + said.stderr
    )

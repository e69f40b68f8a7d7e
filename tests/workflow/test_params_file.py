"""Snakemake reads params.yaml as DVC does, before files of the command line."""

import pytest
from conftest import planned


@pytest.mark.slow
def test_recipes_and_values_of_an_experiment_are_planned(project):
    """Six runs of the recipe and `dpo`; the number of prompts is that of the command line."""
    (project / "params.yaml").write_text(
        "recipes: [recipes/six_losses.yaml]\nruns: {rebel: null}\nprompts: {num_prompts: 8}\n"
    )
    jobs = planned(project, "--configfile", "tests/workflow/quick.yaml")
    assert jobs["train_policy"] == 7
    assert jobs["sample_prompts"] == 3 + 7  # quick.yaml asks for two training shards


@pytest.mark.slow
def test_a_sweep_of_an_experiment_is_planned(project):
    """`dvc exp run -S '+runs.dpo.sweep={beta:[0.05,0.5]}' -S '+runs.rebel=null'` writes these values."""
    (project / "params.yaml").write_text("recipes: []\nruns: {dpo: {sweep: {beta: [0.05, 0.5]}}, rebel: }\n")
    jobs = planned(project, "mt_bench")
    assert jobs["train_policy"] == 2 and jobs["plot_sweeps"] == 1

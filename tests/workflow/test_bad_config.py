"""A mistake in the config is one sentence before any job starts."""

import pytest
from conftest import snakemake


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("train: {betta: 0.2}", "did you mean 'beta'"),
        ("train: {beta: hot}", "train.beta: 'hot' is not of type 'number'"),
        ("train: {learning_rate: -1e-6}", "train.learning_rate: -1e-06 is less than or equal to the minimum"),
        ("train: {loss_type: sigmod}", "train.loss_type: there is no loss 'sigmod'; did you mean 'sigmoid'?"),
        ("runs: {dpo: {loss_type: rebel}}", "runs.dpo: the loss rebel does not take 'beta'"),
        ("runs: {a: {}, a: {}}", "runs.a is given twice"),
        ("runs: {sft: {iterations: 1, init: initial, reference: initial, data: current}}", "another name"),
        ("benchmarks: {a: {kind: lm_evla}}", "'lm_evla' is none of its values; did you mean 'lm_eval'?"),
        ("benchmarks: {a: {kind: lm_eval}}", "benchmarks.a: the kind lm_eval lacks 'tasks'"),
        (
            "benchmarks: {a: {kind: alpaca_eval_annotations, annotations: a, regression_data: b, limit: 3}}",
            "benchmarks.a: the kind alpaca_eval_annotations does not take 'limit'",
        ),
        ("models: {sft: {init: bse}}", "models.sft.init names the model 'bse'"),
    ],
)
def test_one_sentence_before_any_job(project, overlay, message):
    (project / "overlay.yaml").write_text(overlay)
    process = snakemake(project, "--configfile", "overlay.yaml", "-n", check=False)
    assert process.returncode != 0
    assert message in process.stderr + process.stdout
    assert "Traceback" not in process.stderr
    assert not (project / "results").exists()


def test_numbers_that_yaml_reads_as_text(project):
    (project / "overlay.yaml").write_text("train: {learning_rate: 5e-7}")
    snakemake(project, "--configfile", "overlay.yaml", "-n")


def test_profiles_resolve_from_the_root(project):
    snakemake(project, "--profile", "slurm", "-n", "results/winrate.png")

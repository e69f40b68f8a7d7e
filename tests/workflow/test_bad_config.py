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


@pytest.mark.slow
def test_a_policy_cannot_be_published_nowhere(project):
    process = snakemake(project, "-n", "results/published/dpo-1.json", check=False)
    said = process.stdout + process.stderr
    assert process.returncode != 0 and "Traceback" not in said
    assert "config: publish.namespace is null; set it to your user or organization on the hub" in said
    own = ["--config", "publish={namespace: me}", "--", "results/published/dpo-1.json"]
    assert "publish" in snakemake(project, "-n", *own).stdout


def test_numbers_that_yaml_reads_as_text(project):
    (project / "overlay.yaml").write_text("train: {learning_rate: 5e-7}")
    snakemake(project, "--configfile", "overlay.yaml", "-n")


@pytest.mark.slow
def test_profiles_resolve_from_the_root(project):
    snakemake(project, "--profile", "slurm", "-n", "results/winrate.png")


KEYLESS = """
endpoints: {own: {kind: openai, model: m, urls: ["http://127.0.0.1:9/v1"], key_variable: NO_SUCH_KEY}}
benchmarks:
  asked: {kind: alpaca_eval, references: refs.json, temperature: 0, max_tokens: 5, annotator: x, endpoint: own, regression_data: null}
"""  # noqa: E501


@pytest.mark.slow
def test_a_key_that_the_environment_lacks_is_told_before_any_job(project):
    (project / "refs.json").write_text('[{"instruction": "a", "output": "b", "generator": "c"}]')
    (project / "overlay.yaml").write_text(KEYLESS)
    tracked = ["results/models/sft.json", "--set-resources", "train_sft:wandb_project=mine"]
    for arguments, message in (
        (["results/benchmarks/asked/sft.json"], "endpoints.own: the environment has no NO_SUCH_KEY; export"),
        (tracked, "the environment has no WANDB_API_KEY; export it"),
    ):
        process = snakemake(project, "-c1", *arguments, "--configfile", "overlay.yaml", check=False)
        said = process.stdout + process.stderr
        assert process.returncode != 0 and message in said and "Traceback" not in said
        assert not (project / "results").exists()

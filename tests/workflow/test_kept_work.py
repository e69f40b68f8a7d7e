"""What work/ keeps: deleted results come back without a model, and there and back trains nothing new."""

import shutil

import pytest
from conftest import QUICK, snakemake

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    shutil.rmtree(tmp_path / "copy/logs")
    return tmp_path / "copy"


def results(directory):
    """The bytes of every result but of those that say how long a job took, as the report does."""
    paths = [path.relative_to(directory) for path in directory.glob("results/**/*") if path.is_file()]
    return {
        str(path): (directory / path).read_bytes()
        for path in paths
        if path.name not in (".snakemake_timestamp", "report.html")
        and not {"records", "generation"} & set(path.parts)
    }


def logs(directory):
    return {
        str(path.relative_to(directory / "logs")): path.read_text()
        for path in directory.glob("logs/**/*.txt")
    }


def test_deleted_results_come_back_the_same_and_no_model_is_asked(copy):
    wanted = results(copy)
    shutil.rmtree(copy / "results")
    snakemake(copy, *QUICK)
    assert results(copy) == wanted
    for name, text in logs(copy).items():
        if name.split("/")[0].startswith(("pretrain", "train_")) or "train_policy" in name:
            assert "nothing to train" in text, name
        if "generate_completions" in name or "answer_" in name:
            assert "rows are in the journal" in text, name
            assert "tokens/s" not in text, name


def test_there_and_back_trains_twice(copy):
    wanted = results(copy)
    config = copy / "config.yaml"
    text = config.read_text()
    assert text.count("    beta: 0.1\n") == 1
    config.write_text(text.replace("    beta: 0.1\n", "    beta: 0.3\n"))
    snakemake(copy, *QUICK)
    assert "step " in logs(copy)["dpo-1/train_policy.txt"]
    other = results(copy)
    assert other["results/models/dpo-1.json"] != wanted["results/models/dpo-1.json"]
    config.write_text(text)
    snakemake(copy, *QUICK)
    assert "nothing to train" in logs(copy)["dpo-1/train_policy.txt"]
    assert results(copy) == wanted

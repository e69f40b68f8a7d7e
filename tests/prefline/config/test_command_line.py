"""Words after --configfile that are no config files end Snakemake with one sentence."""

import pytest
from project_copy import copy_project, snakemake

from prefline.config import command_line


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    for name in ("mine.yaml", "other.yaml"):
        (tmp_path / name).write_text("seed: 2")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ["results/winrate.png", "--configfile", "mine.yaml", "other.yaml"],
        ["--configfile", "mine.yaml", "-n", "results/winrate.png"],
        ["--configfiles=mine.yaml", "results/winrate.png"],
        ["-c1", "checks"],
        ["--config", "seed=2", "--configfile", "mine.yaml"],
    ],
)
def test_targets_elsewhere_are_targets(words):
    command_line.check(["snakemake", *words])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--configfile", "mine.yaml", "results/winrate.png"],
            "Error: --configfile takes every word that follows it, and results/winrate.png is no file of "
            "config values; write targets first: snakemake results/winrate.png --configfile mine.yaml",
        ),
        (
            ["--configfile", "mine.yaml", "results/winrate.json"],
            "snakemake results/winrate.json --configfile ",
        ),
        (
            ["-n", "--configfiles", "mine.yaml", "other.yaml", "checks"],
            "first: snakemake checks --configfile mine.yaml ",
        ),
        (["checks", "--configfile", "mien.yaml"], "Error: --configfile: there is no file mien.yaml"),
        (["checks", "--configfile=mien.yaml"], "did you mean mine.yaml?"),
    ],
)
def test_a_target_or_a_missing_file_after_the_flag_is_one_sentence(words, sentence):
    with pytest.raises(SystemExit) as ended:
        command_line.check(["snakemake", *words])
    assert sentence in ended.value.code and "\n" not in ended.value.code


@pytest.mark.slow
def test_snakemake_prints_it_whether_the_target_exists_or_not(tmp_path):
    project = copy_project(tmp_path / "project")
    for _ in range(2):
        said = snakemake(project, "--configfile", "config.yaml", "results/winrate.png", check=False)
        assert said.returncode == 1 and "Traceback" not in said.stderr + said.stdout
        assert said.stderr.splitlines()[-1].startswith("Error: --configfile takes every word that follows it")
        (project / "results").mkdir(exist_ok=True)
        (project / "results/winrate.png").write_bytes(b"\x89PNG")

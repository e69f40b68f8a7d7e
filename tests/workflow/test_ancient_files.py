"""Jobs that others do not trigger: an edit behind them is seen, and nothing is repeated for them."""

import re
import shutil
import subprocess

import pytest
from conftest import ROOT

SNAKEFILE = """
import sys
sys.path.insert(0, {root!r})
from snakemake.dag import DAG
from prefline.machine import checks
checks.notice_edits_after_ancient_files(DAG)

rule made:
    input: ancient("checked")
    output: "made"
    params: config["made"]
    shell: "touch {{output}}"

rule checked:
    output: "checked"
    params: config["checked"]
    shell: "touch {{output}}"
"""


@pytest.mark.slow
def test_an_edit_of_a_check_and_of_a_job_behind_it_runs_both(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(root=str(ROOT)))

    def snakemake(*words):
        command = ["snakemake", "-c1", "made", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return set(re.findall(r"^(?:local)?rule (\w+):", done.stdout + done.stderr, re.MULTILINE))

    snakemake("--config", "made=1", "checked=1")
    assert snakemake("-n", "--config", "made=1", "checked=1") == set()
    assert snakemake("-n", "--config", "made=1", "checked=2") == {"checked"}
    assert snakemake("-n", "--config", "made=2", "checked=2") == {"checked", "made"}


FETCHED = """
import sys
sys.path.insert(0, {root!r})
from snakemake.dag import DAG
from prefline.machine import checks
checks.refetch_alone(DAG, lambda job: job.rule.name == "fetched")

rule all:
    input: "sampled", "trained"

rule fetched:
    output: model=directory("model"), manifest="model.json"
    params: config["fetched"]
    shell: "mkdir model; date +%N > model/weights; echo {{params}} > model.json"

rule sampled:
    input: model=ancient("model"), manifest="model.json"
    output: "sampled"
    shell: "touch {{output}}"

rule trained:
    input: model=ancient("model"), manifest="model.json", sampled="sampled"
    output: "trained"
    params: config["trained"]
    shell: "touch {{output}}"
"""


@pytest.mark.slow
def test_a_fetched_model_that_is_missing_is_fetched_when_needed_and_repeats_nothing(tmp_path):
    (tmp_path / "Snakefile").write_text(FETCHED.format(root=str(ROOT)))

    def snakemake(*words, fetched=1, trained=1):
        command = ["snakemake", "-c1", *words, "--config", f"fetched={fetched}", f"trained={trained}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return set(re.findall(r"^(?:local)?rule (\w+):", done.stdout + done.stderr, re.MULTILINE)) - {"all"}

    assert snakemake() == {"fetched", "sampled", "trained"}
    shutil.rmtree(tmp_path / "model")
    assert snakemake("-n") == set()
    assert snakemake("-n", "model") == {"fetched"}
    assert snakemake("-n", fetched=2) == {"fetched", "sampled", "trained"}
    assert snakemake("-n", "--forcerun", "fetched") == {"fetched", "sampled", "trained"}
    assert snakemake("-n", trained=2) == {"fetched", "trained"}
    (tmp_path / "model.json").unlink()
    assert snakemake("-n", trained=2) == {"fetched", "sampled", "trained"}

"""An edit that runs a check leaves nothing stale behind it."""

import re
import subprocess

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

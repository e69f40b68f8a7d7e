"""One change of the config has vLLM run the policies of the whole chain."""

import json

import pytest
from conftest import QUICK, snakemake

pytest.importorskip("vllm")


@pytest.mark.slow
def test_the_chain_runs_with_vllm(project):
    snakemake(project, *QUICK, "tests/workflow/vllm.yaml")
    assert (project / "results/winrate.png").exists()
    found = [json.loads(path.read_text()) for path in project.glob("results/samples/*/generation/*.json")]
    assert len(found) == 6
    for metrics in found:
        assert metrics["engine"] == "vllm"
        assert metrics["made"] == metrics["completions"] == 4 * metrics["prompts"]
        assert metrics["given_up"] == []
        assert metrics["engine_restarts"] == 0

"""One change of the config has vLLM run a policy: its completions, then its MT-Bench answers."""

import json
import shutil

import pytest
from conftest import QUICK, snakemake

pytest.importorskip("vllm")


@pytest.mark.long
def test_vllm_answers_for_a_policy(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, symlinks=True)
    wanted = ["results/samples/sft/preferences.json", "results/mt_bench/answers/sft.jsonl"]
    snakemake(copy, *wanted, *QUICK, "tests/workflow/vllm.yaml")
    found = [json.loads(path.read_text()) for path in copy.glob("results/samples/sft/generation/*.json")]
    assert len(found) == 3
    for metrics in found:
        assert metrics["engine"] == "vllm"
        assert metrics["made"] == metrics["completions"] == 4 * metrics["prompts"]
        assert metrics["given_up"] == []
        assert metrics["engine_restarts"] == 0

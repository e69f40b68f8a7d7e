"""Checks run before all other jobs, all of them even if one fails, and show what they found in one table."""

import pytest
from conftest import planned, snakemake
from stand_in import StandIn

from prefline import files
from prefline.machine import device

OVERLAY = """
endpoints:
  local: {{kind: openai, urls: ["{url}"], model: judge}}
  keyless: {{kind: openai, urls: ["{url}"], model: judge, key_variable: NO_SUCH_KEY}}
  lost: {{kind: openai, urls: ["{url}"], model: gone}}
  own: {{kind: vllm, model: base}}
mt_bench: {{judge: [{judges}], judges: {{local: {{endpoint: local, max_tokens: 8}},
  keyless: {{endpoint: keyless, max_tokens: 8}}, lost: {{endpoint: lost, max_tokens: 8}},
  own: {{endpoint: own, max_tokens: 8}}}}}}
"""
DATA = ["base", "prompts", "reward_model", "sft", "vibe_check"]


@pytest.fixture
def overlaid(project):
    stand_in = StandIn(name="judge", says=lambda _: "[[A]]")

    def overlay(*judges):
        (project / "o.yaml").write_text(OVERLAY.format(url=stand_in.url, judges=", ".join(judges)))
        return project

    yield overlay
    stand_in.close()


def said(project, *arguments, check=False):
    process = snakemake(project, *arguments, "--configfile", "o.yaml", check=check)
    return process.stdout + process.stderr


def states(project):
    """{name: state} of the table."""
    lines = (project / "results/checks/table.txt").read_text().splitlines()
    return {line[9:].split()[0]: line[:8].strip() for line in lines}


@pytest.mark.slow
def test_all_failures_are_shown_and_nothing_else_starts(overlaid):
    project = overlaid("keyless", "local", "lost", "own")
    output = said(project)
    wanted = {f"data/{name}": "passed" for name in DATA}
    wanted |= {"models/start": "passed", "rewards/reward_model": "skipped", "device/gpu": "skipped"}
    wanted |= {f"endpoints/mt_bench.judges.{name}": "FAILED" for name in ("keyless", "lost")}
    wanted |= {"endpoints/mt_bench.judges.local": "passed", "endpoints/mt_bench.judges.own": "skipped"}
    assert states(project) == wanted
    assert "Checks failed, so nothing else was started:" in output
    assert "the environment has no NO_SUCH_KEY" in output and "no model 'gone'" in output
    assert "Traceback" not in output and "BUG" not in output
    assert {path.name for path in (project / "results/models").glob("*")} == {"start", "start.json"}


@pytest.mark.slow
def test_checks_alone_print_the_table_and_run_once(overlaid):
    project = overlaid("local", "own")
    output = said(project, "checks", check=True)
    assert set(states(project).values()) == {"passed", "skipped"}
    assert (project / "results/checks/table.txt").read_text() in output
    assert "rule check_" not in said(project, "checks", check=True)
    # An edit of what shapes no answer asks once more, and runs nothing else again.
    path = project / "o.yaml"
    path.write_text(path.read_text().replace("model: judge}", "model: judge, timeout: 5}"))
    assert planned(project, "checks", "--configfile", "o.yaml") == {"check_endpoint": 1, "checks": 1}


@pytest.mark.slow
@pytest.mark.skipif(not device.for_cpus(device.facts([])), reason="builds for CUDA are installed")
def test_a_gpu_that_torch_cannot_use_is_found_before_any_training(project, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    process = snakemake(project, "results/models/dpo-1", check=False)
    assert process.returncode == 1 and "Traceback" not in process.stdout + process.stderr
    found = states(project)
    assert found.pop("device/gpu") == "FAILED" and found.pop("models/start") == "not run"
    assert found.pop("rewards/reward_model") == "skipped" and set(found.values()) == {"passed"}
    said = (project / "results/checks/table.txt").read_text().splitlines()[0]
    assert "GPU 0 cannot be used: torch " in said and "`make .venv DEVICE=cuda`" in said
    assert not (project / "results/training").exists()


@pytest.mark.slow
def test_the_gpu_is_checked_only_where_jobs_may_get_one(project, monkeypatch):
    def checks():
        return {rule for rule in planned(project, "results/models/dpo-1") if rule.startswith("check_")}

    assert checks() == {"check_data", "check_model"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert checks() == {"check_data", "check_device", "check_model"}


def test_a_dry_run_names_the_checks_that_have_not_passed(overlaid):
    project = overlaid("local")
    output = said(project, "-n", check=True)
    names = [f"data/{name}" for name in DATA] + ["endpoints/mt_bench.judges.local", "models/start"]
    assert f"run before all other jobs: {', '.join(names)}\n" in output


@pytest.mark.slow
def test_the_found_sentences_are_those_of_the_files(overlaid):
    project = overlaid("local")
    said(project, "results/checks/data/prompts.json", check=True)
    found = files.read_json(project / "results/checks/data/prompts.json")
    assert found["found"] == "source: 1000 rows" and found["source"]["read"] == 1000

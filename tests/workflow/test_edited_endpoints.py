"""What an edit of an endpoint runs again: nothing, or if it changes answers, who names it."""

import copy
import json
import subprocess
import sys

import pytest
from conftest import copy_project

FILE = "data/mt_bench/question.jsonl"
OVERLAY = {
    "endpoints": {
        "local": {"kind": "openai", "urls": ["http://localhost/v1"], "model": "judge"},
        "own": {"kind": "vllm", "model": "sft"},
    },
    "generate": {"engine": "server", "endpoint": "local"},
    "rewards": {
        "polite": {
            **{"kind": "judge", "endpoint": "local", "rubric": "data/rubric.txt", "lowest": 1, "highest": 10},
            **{"max_tokens": 8, "weight": 1.0, "normalize": "none"},
        }
    },
    "runs": {
        "online": {
            "method": "grpo",
            "iterations": 1,
            "init": "initial",
            "reference": "initial",
            "data": "all",
        }
    },
    "mt_bench": {"judge": ["g"], "judges": {"g": {"endpoint": "local", "max_tokens": 8}}},
    "benchmarks": {
        "alpaca": {
            **{"kind": "alpaca_eval", "references": FILE, "temperature": 0, "max_tokens": 8},
            **{"annotator": "a", "endpoint": "local", "regression_data": None},
        }
    },
}
FREE = {
    **{"urls": ["http://elsewhere/v1"], "key_variable": "KEY", "timeout": 5, "requests_per_minute": 9},
    **{"tokens_per_minute": 9, "input_price": 1.5, "output_price": 2.5, "max_calls": 7, "max_cost": 8.5},
}
ASKING = {"generate_completions", "answer_mt_bench", "answer_vibe_check", "answer_benchmark"}
ASKING |= {"rate_completions", "ask_judge", "annotate_alpaca_eval", "train_online"}
PAGES = {"write_report", "write_model_card"}  # which show the config
CHECKS = {"check_annotator", "check_endpoint"}  # `ancient`: nothing is made from them
PROGRAM = """
import json, sys
from prefline.provenance import workflow
for overlay in map(json.loads, sys.stdin):
    print(json.dumps(sorted(workflow.jobs(overlay).items())))
"""


def edited(**changed):
    overlay = copy.deepcopy(OVERLAY)
    overlay["endpoints"]["local"] |= changed
    return overlay


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """{name: {output: job}} as the config stands, and after edits."""
    overlays = {
        "before": OVERLAY,
        "free": edited(**FREE),
        "model": edited(model="another"),
        "form": edited(form="max_tokens"),
    }
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=copy_project(tmp_path_factory.mktemp("endpoints")),
        input="\n".join(map(json.dumps, overlays.values())),
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr[-2000:]
    return {
        name: dict(json.loads(line)) for name, line in zip(overlays, said.stdout.splitlines(), strict=True)
    }


def changed(jobs, name):
    """The rules of which an edit changes jobs."""
    assert jobs[name].keys() == jobs["before"].keys()
    return {job[0] for output, job in jobs[name].items() if job != jobs["before"][output]}


@pytest.mark.slow
def test_addresses_keys_rates_prices_budgets_and_timeouts_run_nothing_again(jobs):
    assert {job[0] for job in jobs["before"].values()} >= ASKING
    assert CHECKS <= changed(jobs, "free") <= PAGES | CHECKS


def test_the_model_runs_again_what_asks_it(jobs):
    assert changed(jobs, "model") - PAGES - CHECKS == ASKING | {"score_alpaca_eval"}


def test_the_form_of_requests_runs_judges_again(jobs):
    judges = {"rate_completions", "ask_judge", "annotate_alpaca_eval", "train_online"}
    assert changed(jobs, "form") - PAGES - CHECKS == judges

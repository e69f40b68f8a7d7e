"""The files under rules/ can be included in any order: only common.smk is first, and finish.smk last."""

import json
import random
import re
import subprocess
import sys

import pytest
from conftest import copy_project

INCLUDE = re.compile(r'^include: "(.+)"\n', re.M)
FILE = "data/mt_bench/question.jsonl"
# Every rule file has jobs: a language model judges, and there is a benchmark of each kind.
OVERLAY = {
    "endpoints": {
        "own": {"kind": "vllm", "model": "sft"},
        "local": {"kind": "openai", "urls": ["http://localhost/v1"], "model": "j"},
    },
    "mt_bench": {
        "judge": ["own", "reference", "reward"],
        "modes": ["pairwise-all"],
        "judges": {"own": {"endpoint": "own", "max_tokens": 8}},
    },
    "benchmarks": {
        "lm_eval": {
            **{"kind": "lm_eval", "tasks": ["arc_easy"], "include_path": None, "num_fewshot": None},
            **{"limit": 3, "apply_chat_template": True, "dtype": "float32"},
        },
        "alpaca": {
            **{"kind": "alpaca_eval", "references": FILE, "temperature": 0, "max_tokens": 8},
            **{"annotator": "a", "endpoint": "local", "regression_data": None},
        },
        "annotated": {"kind": "alpaca_eval_annotations", "annotations": FILE, "regression_data": None},
        "code": {"kind": "evalplus", "problems": FILE, "temperature": 0, "max_tokens": 8},
        "arena": {
            **{"kind": "arena_hard", "judgments": "data/mt_bench", "answers": "data/mt_bench"},
            **{"baseline": "b", "bootstrap_samples": 9},
        },
    },
}
PROGRAM = f"""
import json
from prefline.provenance import workflow
print(json.dumps(sorted(workflow.jobs({OVERLAY!r}).items())))
"""


def jobs(directory):
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=directory, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr[-2000:]
    return json.loads(said.stdout)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def expected(project):
    found = jobs(project)
    assert {job[1] for _, job in found} >= {"benchmarks_lm_eval", "mt_bench_judges", "report", "publish"}
    return found


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_order_of_includes_does_not_matter(project, expected, tmp_path, number):
    """The middle of the Snakefile is turned around or shuffled; files include their parts at their end."""
    copy = copy_project(tmp_path)
    first, *middle, last = INCLUDE.findall((copy / "Snakefile").read_text())
    assert (first, last) == ("rules/common.smk", "rules/finish.smk") and len(middle) > 10
    shuffled = middle[::-1] if number == 1 else random.Random(number).sample(middle, len(middle))
    order = iter([first, *shuffled, last])
    text = (copy / "Snakefile").read_text()
    (copy / "Snakefile").write_text(INCLUDE.sub(lambda found: f'include: "{next(order)}"\n', text))
    for name in middle:
        text = (copy / name).read_text()
        parts = "".join(f'\n\ninclude: "{part}"\n' for part in INCLUDE.findall(text))
        (copy / name).write_text(INCLUDE.sub("", text) + parts)
    assert jobs(copy) == expected

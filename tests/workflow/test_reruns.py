"""An edit re-runs what depends on it and nothing else; a second run has nothing to do."""

import re
import shutil

import pytest
from conftest import QUICK, snakemake


def planned(directory):
    """{rule: number of jobs} that Snakemake would run."""
    process = snakemake(directory, *QUICK, "-n")
    table = re.search(r"^Job stats:\n.*?\n-+.*?\n(.*?)^total", process.stdout + process.stderr, re.S | re.M)
    if not table:
        assert "Nothing to be done" in process.stdout + process.stderr
        return {}
    rows = [line.split() for line in table[1].splitlines() if line.strip()]
    return {rule: int(count) for rule, count in rows if rule != "all"}


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def edit(directory, old, new, file="config.yaml"):
    text = (directory / file).read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
    (directory / file).write_text(text.replace(old, new))


DOWNSTREAM_OF_ONE_POLICY = {
    "train_policy": 1,
    "answer_mt_bench": 1,
    "judge_mt_bench": 1,
    "compute_winrate": 1,
    "plot_winrate": 1,
    "answer_vibe_check": 1,
    "write_vibe_check": 1,
}


def test_nothing_to_do(finished):
    assert planned(finished) == {}


def test_beta_of_one_run(copy):
    edit(copy, "    beta: 0.1\n", "    beta: 0.3\n")
    assert planned(copy) == DOWNSTREAM_OF_ONE_POLICY


def test_new_run(copy):
    new = "dpo_hot: {iterations: 1, init: initial, reference: initial, data: current, beta: 0.5}"
    edit(copy, "runs:\n", f"runs:\n  {new}\n")
    assert planned(copy) == DOWNSTREAM_OF_ONE_POLICY


def test_more_prompts_leave_full_shards_alone(copy):
    """24 prompts fill a shard of 16 and half of the next: only the second one grows to 32.

    The policy trained from them is another one, so all three shards that it answers are made again.
    """
    edit(copy, "num_prompts: 24", "num_prompts: 32", file="tests/workflow/quick.yaml")
    assert planned(copy)["generate_completions"] == 1 + 3


def test_plot_code(copy):
    with open(copy / "scripts/plot_winrate.py", "a") as file:
        file.write("\nAN_EDIT = True\n")
    assert planned(copy) == {"plot_winrate": 1}

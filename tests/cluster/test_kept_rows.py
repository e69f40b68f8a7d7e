"""What a job has made when Slurm takes its node away, the same job finds again after it was queued anew."""

import os
import re
import shutil
import signal

import pandas as pd
import pytest

from tests.cluster.slurm_here import wait_for
from tests.cluster.test_interruptions import log, process_of
from tests.workflow.conftest import QUICK

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

# Small batches, so that there is a first one long before the last.
BATCHES = ["generate_completions:batch_size=2", "answer_mt_bench:batch_size=2"]
BATCHES += [
    f"{rule}:batch_tokens=256" for rule in ("score_completions", "compute_ref_logps", "judge_mt_bench")
]

# Of each rule: what it makes, its log, and the kind of its journal's rows.
CASES = {
    "generate_completions": (
        "samples/sft/completions/train-00000.parquet",
        "sft/generate_completions/train-00000.txt",
        "completions",
    ),
    "score_completions": (
        "samples/sft/rewards/reward_model/train-00000.parquet",
        "sft/score_completions/reward_model/train-00000.txt",
        "rewards",
    ),
    "compute_ref_logps": (
        "samples/sft/ref_logps/sft/0000.parquet",
        "sft/compute_ref_logps/sft/0000.txt",
        "ref_logps",
    ),
    "answer_mt_bench": ("mt_bench/answers/dpo-1.jsonl", "dpo-1/answer_mt_bench.txt", "answers"),
    "judge_mt_bench": (
        "mt_bench/judgments/reward/dpo-1.jsonl",
        "dpo-1/judge_mt_bench/reward.txt",
        "verdicts",
    ),
}


@pytest.mark.parametrize("rule", CASES)
def test_rows_made_before_a_preemption_are_not_made_again(slurm, finished, tmp_path, rule):
    """Stopped at its first rows, the process has SIGTERM as the first thing that it hears again."""
    name, its_log, kind = CASES[rule]
    project = tmp_path / "project"
    shutil.copytree(finished, project, symlinks=True)
    made = project / "results" / name
    made.unlink(missing_ok=True)
    shutil.rmtree(project / "work/journal")
    overlay = project / "reward.yaml"
    overlay.write_text("mt_bench: {judge: reward}\n" if rule == "judge_mt_bench" else "{}\n")

    target = [str(made.relative_to(project)), "--set-resources", *BATCHES, *QUICK[2:], "reward.yaml"]
    driver = slurm.start_snakemake(project, *target)
    try:
        wait_for(lambda: any(_rows(project, kind)), 150, "a first row")
        frozen = process_of(project, rule)
        os.kill(frozen, signal.SIGSTOP)
        kept = sum(_rows(project, kind))
        (job,) = slurm.jobs_of(project, rule)
        slurm.ask("scontrol", "requeue", job["JobId"])
        said, _ = driver.communicate(timeout=300)
    finally:
        driver.kill()
    assert driver.returncode == 0, said[-3000:]
    (job,) = slurm.jobs_of(project, rule)
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1")
    said = log(project, f"logs/{its_log}")
    found = re.search(r"^(\d+) of (\d+) rows are in the journal", said, re.MULTILINE)
    assert found and kept <= int(found[1]) < int(found[2]), said
    if made.suffix == ".parquet":  # of floats, up to the rounding of other batches
        undisturbed = pd.read_parquet(finished / "results" / name)
        pd.testing.assert_frame_equal(pd.read_parquet(made), undisturbed, rtol=1e-4, atol=1e-4)


def _rows(directory, kind):
    """How many rows each file of a kind of journal has (list of int)."""
    found = (directory / "work/journal" / kind).glob("*/*.jsonl")
    return [path.read_bytes().count(b"\n") for path in found]

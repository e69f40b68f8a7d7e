"""What work/ keeps: deleted results come back without a model, and there and back trains nothing new."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import QUICK, snakemake

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    shutil.rmtree(tmp_path / "copy/logs")
    return tmp_path / "copy"


# Rules that use work/ and run after an edit of a run's beta.
AFTER_BETA = {
    *("train_policy", "answer_mt_bench", "judge_mt_bench", "answer_vibe_check"),
    *("generate_completions", "score_completions"),
}


def results(directory):
    """The bytes of every result but of those that say how long a job took, as the report does."""
    paths = [path.relative_to(directory) for path in directory.glob("results/**/*") if path.is_file()]
    return {
        str(path): (directory / path).read_bytes()
        for path in paths
        if path.name not in (".snakemake_timestamp", "report.html")
        and not {"records", "generation"} & set(path.parts)
    }


def logs(directory):
    return {
        str(path.relative_to(directory / "logs")): path.read_text()
        for path in directory.glob("logs/**/*.txt")
    }


def outlook(directory, *arguments):
    """Return a plan's table of work/, {rule: jobs restored, resumed, computed}, and trainings that resume."""
    process = snakemake(directory, "-n", *arguments or QUICK)
    text = process.stdout + process.stderr
    head, *lines = text[text.index("In work/:") :].splitlines()
    places = [head.index(name) for name in ("restored", "resumed", "to compute (at most)")]
    ends = [*(place - 2 for place in places[1:]), len(head)]
    rows = {}
    while re.match(r"\w+ [ \d]*$", lines[0]):
        line = lines.pop(0)
        cells = (line[place:end].strip() for place, end in zip(places, ends, strict=True))
        rows[line.split()[0]] = [int(cell or 0) for cell in cells]
    return rows, [line for line in lines if " resumes after step " in line]


def test_deleted_results_come_back_the_same_and_no_model_is_asked(copy):
    wanted = results(copy)
    shutil.rmtree(copy / "results")
    rows, _ = outlook(copy)
    assert {tuple(map(bool, row)) for row in rows.values()} == {(True, False, False)}, rows
    assert rows["train_policy"] == [3, 0, 0] and rows["generate_completions"][0] > 3
    snakemake(copy, *QUICK)
    assert results(copy) == wanted
    for name, text in logs(copy).items():
        if name.split("/")[0].startswith(("pretrain", "train_")) or "train_policy" in name:
            assert "nothing to train" in text, name
        if "generate_completions" in name or "answer_" in name:
            assert re.search(r"^(\d+) of \1 rows are in the journal", text, re.M), name
            assert "tokens/s" not in text, name


def test_there_and_back_trains_twice(copy):
    wanted = results(copy)
    config = copy / "config.yaml"
    text = config.read_text()
    assert text.count("    beta: 0.1\n") == 1
    config.write_text(text.replace("    beta: 0.1\n", "    beta: 0.3\n"))
    assert "nothing that is known" in snakemake(copy, "-n", *QUICK).stdout
    snakemake(copy, *QUICK)
    assert "step " in logs(copy)["dpo-1/train_policy.txt"]
    other = results(copy)
    assert other["results/models/dpo-1.json"] != wanted["results/models/dpo-1.json"]
    config.write_text(text)
    rows, _ = outlook(copy)
    assert rows == {name: [1, 0, 0] for name in AFTER_BETA}
    snakemake(copy, *QUICK)
    assert "nothing to train" in logs(copy)["dpo-1/train_policy.txt"]
    assert results(copy) == wanted


def test_a_plan_says_after_which_step_a_killed_training_resumes(copy):
    (copy / "long.yaml").write_text("train: {num_train_epochs: 90}")
    words = ["results/models/dpo-1.json", *QUICK, "long.yaml"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    run = subprocess.Popen(
        ["snakemake", *words], cwd=copy, env=environment, start_new_session=True, stderr=subprocess.DEVNULL
    )
    while not list(copy.glob("work/train_policy/*/checkpoint-*/COMPLETE")):
        assert run.poll() is None
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    rows, resumed = outlook(copy, *words)
    assert rows == {"train_policy": [0, 1, 0]}
    assert re.fullmatch(r"train_policy of dpo-1 resumes after step \d+ of \d+", resumed[0])

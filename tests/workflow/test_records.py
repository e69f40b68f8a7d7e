"""What made a result is known, travels with it, and is believed only while the contents agree."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import QUICK, snakemake


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def planned(directory):
    """What Snakemake says that it would do."""
    process = snakemake(directory, *QUICK, "-n")
    return process.stdout + process.stderr


def refusal(directory):
    process = snakemake(directory, *QUICK, "-n", check=False)
    assert process.returncode != 0
    return process.stdout + process.stderr


def lineage(directory, path="results/winrate.json"):
    return subprocess.run(
        [sys.executable, "-m", "tools.lineage", path],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )


def test_records_are_enough(copy):
    """Without Snakemake's own metadata, and with the times of files turned around, there is nothing to do."""
    shutil.rmtree(copy / ".snakemake")
    made = sorted(path for path in (copy / "results").rglob("*") if path.is_file())
    for age, path in enumerate(sorted(made, key=os.path.getmtime)):
        os.utime(path, (10**9 - age, 10**9 - age))
    assert "Nothing to be done" in planned(copy)
    assert "Nothing to be done" in planned(copy)


def test_a_deleted_file_and_a_later_input_of_its_job_run_nothing(copy):
    """What is left of the job, its benchmark file, is older than the input."""
    for name in ("pool.parquet", "pool.json"):
        (copy / "results/prompts" / name).unlink()
    os.utime(copy / "results/models/sft.json")
    assert "Nothing to be done" in planned(copy)


def test_records_that_are_lost_are_written_again_and_bless_nothing(copy):
    planned(copy)
    for path in ("winrate.json.json", "samples/sft/preferences.json.json"):
        (copy / "results/records" / path).unlink()
    assert "Nothing to be done" in planned(copy)
    record = json.loads((copy / "results/records/winrate.json.json").read_text())
    assert "--bootstrap-samples 200" in str(record["snakemake"]["params"])
    shutil.rmtree(copy / ".snakemake")
    assert "Nothing to be done" in planned(copy)


def test_a_result_changed_by_hand_is_named_although_its_record_is_lost(copy):
    planned(copy)
    (copy / "results/records/samples/sft/preferences.json.json").unlink()
    path = copy / "results/samples/sft/preferences.json"
    path.write_text(path.read_text().replace("1", "2"))
    for _ in range(2):
        assert "changed since the workflow made them: results/samples/sft/preferences.json;" in refusal(copy)


def test_an_edit_is_seen_although_the_metadata_came_from_records(copy):
    shutil.rmtree(copy / ".snakemake")
    config = copy / "tests/workflow/quick.yaml"
    config.write_text(config.read_text().replace("bootstrap_samples: 200", "bootstrap_samples: 300"))
    assert "compute_winrate" in planned(copy)


def test_a_result_changed_by_hand_is_named_and_stays(copy):
    path = copy / "results/samples/sft/preferences.json"
    path.write_text(path.read_text().replace("1", "2"))
    kept = path.read_bytes()
    for _ in range(2):  # it is no more believed the second time
        said = refusal(copy)
        assert "changed since the workflow made them: results/samples/sft/preferences.json;" in said
    assert path.read_bytes() == kept
    path.unlink()
    assert "rule build_preferences" in planned_for(copy, "results/samples/sft/preferences.json")


def test_a_result_that_came_damaged_is_named_every_time(copy):
    """As after pulling a damaged cache object into a clone: there is a record, and no metadata yet."""
    shutil.rmtree(copy / ".snakemake")
    with open(copy / "results/mt_bench/answers/dpo-1.jsonl", "a") as file:
        file.write("\n")
    for _ in range(2):
        assert "changed since the workflow made them: results/mt_bench/answers/dpo-1.jsonl;" in refusal(copy)
    (copy / ".snakemake/prefline_seen.json").unlink()  # as if killed before it was written
    assert "changed since the workflow made them: results/mt_bench/answers/dpo-1.jsonl;" in refusal(copy)


def planned_for(directory, target):
    process = snakemake(directory, target, *QUICK, "-n")
    return process.stdout + process.stderr


def test_a_file_in_a_model_changed_by_hand_is_named(copy):
    config = copy / "results/models/dpo-1/config.json"
    config.write_text(config.read_text() + "\n")
    assert "changed since the workflow made them: results/models/dpo-1;" in refusal(copy)


def test_a_result_of_unknown_origin_is_named(copy):
    shutil.copyfile(copy / "results/winrate.csv", copy / "winrate.csv")
    for path in (".snakemake", "results/records/winrate.csv.json"):
        shutil.rmtree(copy / path) if (copy / path).is_dir() else (copy / path).unlink()
    assert "without a record under results/records/" in (said := refusal(copy))
    assert "rm -r results/winrate.csv && snakemake results/winrate.csv" in said
    (copy / "results/notes.txt").write_text("a file of mine")
    (copy / "results/winrate.csv").unlink()
    assert "rule compute_winrate" in planned(copy)


def test_data_with_an_old_date_is_seen(copy):
    questions = copy / "data/world/vibe_check.jsonl"
    questions.write_text("".join(questions.read_text().splitlines(keepends=True)[1:]))
    os.utime(questions, (0, 0))
    assert "rule answer_vibe_check" in planned(copy)


def test_a_new_date_alone_is_no_change(copy):
    for path in (copy / "data").rglob("*"):
        if path.is_file():
            os.utime(path)
    os.utime(copy / "results/samples/sft/tokenized.parquet")
    assert "Nothing to be done" in planned(copy)


def test_a_clock_that_was_set_back_repeats_nothing_and_misses_nothing(copy):
    """All results are from tomorrow, and what is made now would be older than what it is made of."""
    for path in (copy / "results").rglob("*"):
        if path.is_file() and not path.is_symlink():
            tomorrow = path.stat().st_mtime + 86400
            os.utime(path, (tomorrow, tomorrow))
    assert "Nothing to be done" in planned(copy)
    config = copy / "tests/workflow/quick.yaml"
    config.write_text(config.read_text().replace("bootstrap_samples: 200", "bootstrap_samples: 300"))
    said = snakemake(copy, *QUICK)
    assert "rule compute_winrate" in said.stderr + said.stdout
    assert "rule judge_mt_bench" not in said.stderr + said.stdout
    assert json.loads((copy / "results/winrate.json").read_text())["bootstrap_samples"] == 300
    assert "Nothing to be done" in planned(copy)


def test_two_values_that_change_places_are_a_change(copy):
    """Snakemake compares the params of a job as a set."""
    config = copy / "tests/workflow/quick.yaml"
    text = config.read_text()
    config.write_text(text + "tokenize: {max_prompt_length: 64, max_completion_length: 128}\n")
    assert "rule tokenize_preferences" in planned(copy)


def test_a_comment_costs_nothing_and_an_instruction_runs_its_rules(copy):
    module = copy / "prefline/judging/winrate.py"
    text = module.read_text()
    module.write_text("# a remark\n" + text.replace('"""', '"""Said otherwise. ', 1))
    assert "Nothing to be done" in planned(copy)
    module.write_text(text + "\nEPSILON = 1e-9\n")
    assert "rule compute_winrate" in planned(copy)


def test_lineage_goes_back_to_the_data_and_verifies_it(copy):
    process = lineage(copy)
    assert process.returncode == 0, process.stderr
    said = process.stdout
    for part in (
        "results/winrate.json  sha256",
        "--bootstrap-samples 200",
        "results/models/dpo-1.json",
        "--beta 0.1",
        "data data/world/pretrain_train.jsonl  sha256",
        "packages accelerate",
        ", as it is now: scripts/train/train_policy.py",
    ):
        assert part in said
    assert said.splitlines()[-1].startswith("verified: ")


@pytest.mark.parametrize(
    "path", ["data/world/prompts.jsonl", "results/samples/sft/rewards/reward_model/test-00000.parquet"]
)
def test_lineage_names_what_no_longer_matches(copy, path):
    with open(copy / path, "ab") as file:
        file.write(b"\n")
    process = lineage(copy)
    assert process.returncode == 1
    assert process.stderr.startswith(f"not verified: {path} has changed since")


def test_lineage_of_a_file_without_a_record(copy):
    assert "results/models/nothing.json: has no record" in lineage(copy, "results/models/nothing.json").stderr
    assert "not under results/" in lineage(copy, "config.yaml").stderr


def test_records_name_the_versions_that_made_a_file(finished):
    record = json.loads((finished / "results/records/models/sft.json.json").read_text())
    assert {"torch", "transformers", "trl"} <= set(record["packages"])
    assert record["seconds"] > 0
    assert record["data"].keys() == {"data/world/sft_train.jsonl", "data/world/sft_test.jsonl"}

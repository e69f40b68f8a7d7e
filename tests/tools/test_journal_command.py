"""The command that lists and deletes what work/ keeps."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from prefline import files
from prefline.errors import InputError
from prefline.provenance import journal
from prefline.training import cache
from tools import journal as command

SHAPED_BY = {"script": "test", "settings": {"temperature": 0.7}}


def open_journal(root):
    return journal.Journal(root, "completions", SHAPED_BY, "results/models/sft")


def numbered(count):
    return {journal.key(number): number for number in range(count)}


def make(missing):
    yield missing


def refuse(missing):
    raise AssertionError(f"made again: {missing}")
    yield


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Two journals, one of them unused for 10 days, a finished training and an interrupted one."""
    root = tmp_path / "work/journal"
    open_journal(root).rows(numbered(3), make)
    old = journal.Journal(root, "rewards", SHAPED_BY, "results/models/reward_model")
    old.rows(numbered(5), make)
    for path in old.folder.iterdir():
        os.utime(path, (time.time() - 10 * 86400,) * 2)
    model = tmp_path / "results/models/dpo-1"
    files.write_text(model / "model.safetensors", "weights")
    cache.keep(tmp_path / "work/train_policy/k1", model, {})
    files.write_text(tmp_path / "work/train_policy/k2/checkpoint-3/COMPLETE", "1.0")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "work"


def test_list(work, capsys):
    command.main(["list"])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["kind", "key", "rows"]
    assert len(lines) == 4
    assert lines[-1].split()[0] == "rewards" and lines[-1].split()[2:5] == ["5", "0.00", "10.0"]
    assert lines[-1].endswith("test, results/models/reward_model")
    assert sum(line.endswith("models/dpo-1") for line in lines) == 1
    assert sum(line.endswith("not finished") for line in lines) == 1


def test_prune_by_age_and_kind(work, capsys):
    command.main(["prune", "--older-than", "5"])
    assert not list(work.glob("journal/rewards/*")) and list(work.glob("journal/completions/*"))
    command.main(["prune", "--older-than", "0", "--kind", "train_policy"])
    assert not list(work.glob("train_policy/*/")) and list(work.glob("journal/completions/*"))
    assert Path("results/models/dpo-1/model.safetensors").read_text() == "weights"
    command.main(["prune", "--older-than", "0"])
    command.main(["list"])
    assert len(capsys.readouterr().out.splitlines()) == 4, "three times deleted, and a header"


def test_a_reading_job_is_a_use(work):
    journal.Journal(work / "journal", "rewards", SHAPED_BY, "").rows(numbered(5), refuse)
    command.main(["prune", "--older-than", "5"])
    assert list(work.glob("journal/rewards/*"))


def test_a_training_that_runs_is_left_alone(work, capsys):
    with open(work / "train_policy/k2.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command.main(["prune", "--older-than", "0"])
    assert [path.name for path in work.glob("train_policy/*/")] == ["k2"]
    assert "this training runs" in capsys.readouterr().out


def test_an_unknown_kind(work):
    with pytest.raises(InputError, match="keeps no kind 'reward', only completions, rewards"):
        command.main(["prune", "--older-than", "0", "--kind", "reward"])


def test_nothing_kept_is_an_empty_list(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command.main(["list"])
    assert len(capsys.readouterr().out.splitlines()) == 1

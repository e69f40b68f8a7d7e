"""A plan says which jobs find their rows or training in work/, and promises nothing that is not there."""

import itertools
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from prefline.provenance import environments, kept_jobs
from prefline.provenance.hashes import Hashes

JOURNAL, TRAINING = "work/journal/completions/aa", "work/train_policy/bb"


class File(str):
    """A path as Snakemake has it."""

    is_directory = False


class Directory(File):
    is_directory = True


class Persistence:
    """Snakemake's class with what it compares of jobs, and the method that it calls when one starts."""

    def started(self, job, external_jobid=None):
        pass

    def _params(self, job):
        return job.params

    def _input(self, job):
        return sorted(job.input)

    def _software_stack_hash(self, job):
        return environments.NONE


class Job:
    """A job that reads and writes files."""

    def __init__(self, rule, inputs, outputs, *params):
        self.rule, self.input, self.output, self.params = SimpleNamespace(name=rule), inputs, outputs, params
        self.log = [f"logs/{rule}.txt"]

    def run(self, said, text="made"):
        """Start, and end well unless `text` is None."""
        Persistence().started(self)
        Path(self.log[0]).write_text(said)
        for path in self.output if text is not None else ():
            if path.is_directory:
                Path(path).mkdir(exist_ok=True)
            else:
                Path(path).write_text(f"{text} {self.params}")


def sample(temperature=1):
    return Job("generate", [File("data")], [File("results/rows")], f"temperature {temperature}")


def rank():
    return Job("rank", [File("results/rows")], [File("results/pairs")])


def train():
    made = [Directory("results/model"), File("results/model.json")]
    return Job("train", [File("results/pairs")], made, "beta 0.1")


def sampled(rows=3):
    Path(JOURNAL).mkdir(parents=True, exist_ok=True)
    Path(JOURNAL, "one.jsonl").write_text("row\n" * rows)
    return f"0 of 3 rows are in the journal {JOURNAL}\n"


def trained():
    Path(TRAINING, "result").mkdir(parents=True)
    Path(TRAINING, "result/result.json").write_text("{}")
    return f"this training is kept in {TRAINING}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Persistence, "started", Persistence.started)  # both end with the test
    monkeypatch.setattr(Persistence, "prefline_started", Persistence.started, raising=False)
    for name in (".snakemake", "logs", "results", "work"):
        Path(name).mkdir()
    Path("data").write_text("prompts")
    kept_jobs.note_starts(Persistence)


def states(*jobs):
    """Return {rule: outlook} of planned jobs, each of which follows the one before."""
    kept_jobs.settle(Hashes(".snakemake/hashes.json"))
    before = {job: {} for job in jobs}
    for one, other in itertools.pairwise(jobs):
        before[other][one] = one.output
    dag = SimpleNamespace(needrun_jobs=lambda: list(jobs), dependencies=before)
    found = kept_jobs.forecast(
        dag, Persistence(), Hashes(".snakemake/hashes.json"), lambda job: job.rule.name != "rank"
    )
    return {job.rule.name: outlook for job, outlook in found.items()}


RESTORED, COMPUTED = (kept_jobs.RESTORED, None), (kept_jobs.COMPUTED, None)


def run_all():
    sample().run(sampled())
    rank().run("")
    train().run(trained())


def test_nothing_is_known_of_jobs_that_never_ran():
    assert states(sample(), rank(), train()) == {"generate": COMPUTED, "train": COMPUTED}


def test_removed_outputs_are_restored_also_after_jobs_that_make_inputs_again():
    run_all()
    kept_jobs.settle(Hashes(".snakemake/hashes.json"))
    shutil.rmtree("results")
    Path("results").mkdir()
    assert states(sample(), rank(), train()) == {"generate": RESTORED, "train": RESTORED}


def test_an_edit_computes_and_its_opposite_restores():
    run_all()
    assert states(sample(2), rank(), train()) == {"generate": COMPUTED, "train": COMPUTED}
    sample(2).run(sampled(6), "other")
    rank().run("", "other")
    assert states(sample(), rank(), train()) == {"generate": RESTORED, "train": RESTORED}
    assert states(rank(), train()) == {"train": COMPUTED}, "its pairs are others"


def test_a_started_training_resumes_and_its_followers_are_not_known():
    rows = Path("results/pairs")
    rows.write_text("pairs")
    train().run(f"this training is kept in {TRAINING}\n", text=None)
    checkpoint = Path(TRAINING, "checkpoint-4")
    checkpoint.mkdir(parents=True)
    assert states(train()) == {"train": COMPUTED}, "the checkpoint is not whole"
    train().run(f"this training is kept in {TRAINING}\n", text=None)
    Path(checkpoint, "COMPLETE").write_text("{}")
    Path(checkpoint, "trainer_state.json").write_text(json.dumps({"global_step": 4, "max_steps": 9}))
    follower = Job("generate", [File("results/model.json")], [File("results/rows")])
    assert states(train(), follower) == {"train": (kept_jobs.RESUMED, (4, 9)), "generate": COMPUTED}


def test_jobs_that_differ_in_their_names_alone_are_not_confused():
    jobs = [Job("rank", [File("data")], [File(f"results/{name}")]) for name in ("one", "other")]
    for job in jobs:
        job.run("", job.output[0])
    follower = Job("generate", [File("results/one")], [File("results/rows")])
    follower.run(sampled())
    kept_jobs.settle(Hashes(".snakemake/hashes.json"))
    Path("results/one").unlink()
    assert states(jobs[0], follower) == {"generate": RESTORED}


def test_what_was_pruned_is_not_promised():
    run_all()
    kept_jobs.settle(Hashes(".snakemake/hashes.json"))
    shutil.rmtree(TRAINING)
    Path(JOURNAL, "one.jsonl").unlink()
    Path(JOURNAL, "another.jsonl").write_text("row\n" * 9)
    outlook = states(sample(), rank(), train())
    assert outlook == {"generate": (kept_jobs.RESUMED, None), "train": COMPUTED}
    shutil.rmtree(JOURNAL)
    assert states(sample()) == {"generate": COMPUTED}


def test_a_full_disk_and_changed_inputs_leave_nothing_to_promise():
    sample().run(f"{sampled()}{JOURNAL}: No space left on device; continuing without the journal: after …\n")
    assert states(sample()) == {"generate": (kept_jobs.RESUMED, None)}
    sample(2).run(sampled())
    os.utime("data", (2e9, 2e9))
    assert states(sample(2)) == {"generate": COMPUTED}


def test_jobs_whose_outputs_were_only_touched_are_not_known():
    job = sample()
    Path(job.log[0]).write_text(sampled())
    os.utime(job.log[0], (1, 1))
    Path("results/rows").write_text("given")
    Persistence().started(job)
    assert states(sample()) == {"generate": COMPUTED}


def test_damaged_memory_is_forgotten():
    run_all()
    kept_jobs.settle(Hashes(".snakemake/hashes.json"))
    kept_jobs.MEMORY.write_text("[1]")
    kept_jobs.STARTED.write_text("{")
    assert states(sample()) == {"generate": COMPUTED}


def test_the_table_counts_jobs_by_rule():
    found = {sample(): RESTORED, sample(2): COMPUTED, train(): (kept_jobs.RESUMED, (4, 9))}
    assert kept_jobs.table(found).splitlines() == [
        "In work/:  restored  resumed  to compute (at most)",
        "generate          1                              1",
        "train                      1",
        "train of model resumes after step 4 of 9",
    ]
    assert "nothing that is known" in kept_jobs.table({sample(): COMPUTED})
    assert kept_jobs.table({}) == ""

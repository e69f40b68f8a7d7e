"""What a record says of the data that its job read, of touched outputs, and of versions."""

import base64
import hashlib
import itertools
import os
import shutil
import time
from pathlib import Path

import pytest

from prefline import files
from prefline.errors import InputError
from prefline.provenance import environments, manifest, metadata, plan, records
from prefline.provenance.hashes import Hashes

OUTPUT, SOURCE, DATA = "results/made.json", "results/source.json", "data.jsonl"


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A function that leaves what Snakemake leaves after a job that read DATA and SOURCE: metadata."""
    monkeypatch.chdir(tmp_path)
    plan.COPIES.mkdir(parents=True)
    for path in (DATA, SOURCE, OUTPUT):
        files.write_text(path, path)

    durations = itertools.count(1)

    def job(planned, started=None, **keys):
        plan.write(planned, "", {}, {}, "")
        started = started or time.time()
        made = {
            **{"rule": "make", "input": [DATA, SOURCE], "log": [], "shellcmd": "make", "params": ["'a'"]},
            **{"code": "make", "record_format_version": 6, "software_stack_hash": environments.NONE},
            **{"conda_env": None, "starttime": started, "endtime": started + next(durations)},
            **keys,
        }
        files.write_json(metadata.path_of(OUTPUT), made)
        return made

    return job


def sync():
    known = records.sync(Hashes("hashes.json"), None, {})
    return known[OUTPUT]


def test_a_job_that_read_what_was_planned_is_known(ran):
    made = ran(planned=time.time())
    record = sync()
    assert record["data"] == {DATA: files.sha256(DATA)} and record["inputs"] == {SOURCE: files.sha256(SOURCE)}
    assert record["snakemake"]["params"] == made["params"] == metadata.of(OUTPUT)["params"]


@pytest.mark.parametrize("restore", [True, False])
def test_data_that_changed_between_plan_and_end_makes_its_job_run_again(ran, restore):
    """Also where the job started after the change, and the data is back as it was, date included."""
    planned, status = time.time(), os.stat(DATA)
    time.sleep(0.02)
    files.write_text(DATA, "another")
    started = time.time()
    if restore:
        files.write_text(DATA, DATA)
        os.utime(DATA, ns=(status.st_atime_ns, status.st_mtime_ns))
    ran(planned, started)
    for record in (sync(), sync()):
        assert record["data"] == {DATA: None}
        assert metadata.of(OUTPUT)["params"] == record["snakemake"]["params"] != ["'a'"]
    ran(time.time())  # Snakemake compares these params, and runs it again
    assert sync()["snakemake"]["params"] == ["'a'"]


def test_a_hard_link_to_data_is_no_change_of_it(ran):
    """A fetched model's weights are links to the source's."""
    planned = time.time()
    time.sleep(0.02)
    os.link(DATA, "linked")
    ran(planned)
    assert sync()["data"] == {DATA: files.sha256(DATA)}


def test_an_input_that_changed_while_the_job_ran_is_unknown_although_its_date_is_old(ran):
    ran(planned=time.time())
    time.sleep(0.02)
    status = os.stat(SOURCE)
    files.write_text(SOURCE, "another")
    os.utime(SOURCE, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert sync()["inputs"] == {SOURCE: None}
    assert os.stat(OUTPUT).st_mtime < os.stat(SOURCE).st_mtime  # so Snakemake runs the job again


def test_a_touched_output_is_not_recorded_as_made(ran):
    ran(planned=time.time())
    first = sync()
    assert "touched" not in first
    ran(time.time(), external_jobid="touched")
    assert sync() == first  # it was up to date: the record of the job is still true
    ran(time.time(), external_jobid="touched", params=["'b'"])
    assert sync()["touched"] is True
    assert records.read(OUTPUT)["touched"] is True
    ran(time.time())
    assert "touched" not in sync()


def environment(*pins):
    text = "dependencies:\n" + "".join(f"- {pin}\n" for pin in pins)
    return base64.b64encode(text.encode()).decode()


def test_packages_are_those_of_the_plan_and_another_version_now_is_named(ran, monkeypatch):
    versions = {"torch": "1.0", "numpy": "2.0"}
    monkeypatch.setattr(manifest, "version", versions.get)
    ran(time.time(), conda_env=environment("torch=9", "numpy=9"))
    versions["torch"] = "1.1"  # installed after the run was killed
    known = {OUTPUT: sync()}
    assert known[OUTPUT]["packages"] == {"torch": "1.0", "numpy": "2.0"}
    assert records.differing(known[OUTPUT]) == [("torch", "1.0", "1.1")]
    assert "torch 1.0 made 1 files under results/, and 1.1 is installed now" in records.other_versions(known)
    versions["torch"] = "1.0"
    assert records.other_versions(known) == ""


def test_under_conda_snakemake_compares_the_environment(ran, monkeypatch):
    monkeypatch.setattr(manifest, "version", {"torch": "1.0"}.get)
    ran(time.time(), conda_env=environment("torch=9"), software_stack_hash=hashlib.md5(b"x").hexdigest())
    record = sync()
    assert record["packages"] == {"torch": "9"} and records.other_versions({OUTPUT: record}) == ""


@pytest.mark.parametrize("seen", [True, False])
def test_an_edit_is_not_believed_in_a_copied_project(ran, tmp_path, monkeypatch, seen):
    """Its files have other inodes and dates, as after a new job, and the cache of these may be missing."""
    ran(planned=time.time())
    sync()
    shutil.copytree(tmp_path, tmp_path / "copy", copy_function=shutil.copyfile)
    monkeypatch.chdir(tmp_path / "copy")
    if not seen:
        records.SEEN.unlink()
    files.write_text(OUTPUT, "edited")
    for _ in range(2):
        with pytest.raises(InputError, match=f"changed since the workflow made them: {OUTPUT};"):
            sync()


def test_a_job_that_is_repeated_leaves_its_record_also_in_a_copied_project(ran):
    """DVC tracks records, and Snakemake's metadata must tell of the same job as they do."""
    ran(planned=time.time())
    first = sync()
    ran(planned=time.time())
    assert sync() == first
    os.unlink(records.SEEN)
    files.write_text(DATA, DATA)  # a copy has times of its own
    assert sync() == first and metadata.of(OUTPUT)["params"] == ["'a'"]


def test_a_trial_of_a_server_that_is_repeated_makes_nothing_older(ran):
    trial = "results/checks/endpoints/judge.json"
    files.write_text(trial, "1")
    ran(planned=time.time(), input=[DATA, SOURCE, trial])
    assert sync()["inputs"].keys() == {SOURCE}
    then = os.stat(OUTPUT).st_mtime_ns
    files.write_text(trial, "2")
    sync()
    assert os.stat(OUTPUT).st_mtime_ns == then


def test_a_link_that_led_elsewhere_while_its_job_ran_makes_it_run_again(ran):
    """As `dvc checkout` there and back does: the file itself never changes."""
    Path("here").mkdir()
    Path("there").mkdir()
    for folder in ("here", "there"):
        files.write_text(f"{folder}/data.jsonl", folder)
    Path("current").symlink_to("here")
    planned = time.time()
    ran(planned, input=["current/data.jsonl"])
    assert sync()["data"] == {"current/data.jsonl": files.sha256("here/data.jsonl")}
    planned = time.time()
    time.sleep(0.02)
    for folder in ("there", "here"):
        Path("current").unlink()
        Path("current").symlink_to(folder)
    ran(planned, input=["current/data.jsonl"])
    assert sync()["data"] == {"current/data.jsonl": None}

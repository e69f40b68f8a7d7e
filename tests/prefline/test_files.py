"""Files that are whole or absent, and scripts that end with one sentence and leave no orphans."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from prefline import errors, files


def start(code, *arguments):
    """A Python process that runs `code` and prints a line when it has come to the interesting point."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    process.first_line = process.stdout.readline().strip()
    assert process.first_line, "the process ended before its line"
    return process


def kill(process):
    process.kill()
    process.wait()
    process.stdout.close()


def gone(pid, seconds=60):
    """Whether the process `pid` ends within that time; a zombie that nobody waits for has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with files.atomic(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent, "a rename is atomic only within a file system"
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["file.txt"]


@pytest.mark.parametrize("before", [None, "old"])
def test_a_writer_that_raises_changes_nothing(tmp_path, before):
    path = tmp_path / "file.txt"
    if before:
        path.write_text(before)
    with pytest.raises(ZeroDivisionError), files.atomic(path) as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert (path.read_text() if path.exists() else None) == before
    assert os.listdir(tmp_path) == (["file.txt"] if before else [])


@pytest.mark.parametrize("before", [None, "old"])
def test_a_directory_is_whole_or_as_it_was(tmp_path, before):
    path = tmp_path / "model"
    if before:
        path.mkdir()
        (path / before).touch()
    with pytest.raises(ZeroDivisionError), files.atomic_directory(path) as temporary:
        (temporary / "half").touch()
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == (["model"] if before else [])
    with files.atomic_directory(path) as temporary:
        (temporary / "weights").write_text("whole")
    assert os.listdir(tmp_path) == ["model"]
    assert os.listdir(path) == ["weights"], "nothing of an earlier directory stays"


@pytest.mark.parametrize(
    ("writer", "write_half"),
    [("atomic", "temporary.write_text('half')"), ("atomic_directory", "(temporary / 'half').touch()")],
)
def test_sigkill_midway_leaves_no_half_thing_and_the_next_writer_succeeds(tmp_path, writer, write_half):
    code = f"""
        import sys, time
        from prefline import files
        with files.{writer}(sys.argv[1]) as temporary:
            {write_half}
            print("half", flush=True)
            time.sleep(600)
        """
    path = tmp_path / "artifact"
    kill(start(code, path))
    assert not path.exists()
    with getattr(files, writer)(path) as temporary:
        (temporary / "whole" if writer == "atomic_directory" else temporary).write_text("whole")
    assert (path / "whole" if writer == "atomic_directory" else path).read_text() == "whole"


def test_json_is_the_same_bytes_for_equal_values_and_holds_no_nan(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    files.write_json(tmp_path / "b.json", {"a": "é", "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert files.sha256(tmp_path / "a.json") == files.sha256(tmp_path / "b.json")
    assert files.read_json(tmp_path / "a.json") == {"a": "é", "b": 1}
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "c.json", {"loss": math.nan})
    with pytest.raises(ValueError):
        files.write_jsonl(tmp_path / "c.jsonl", [{"loss": 1.0}, {"loss": math.inf}])
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.json"]


def run_script(body):
    code = f"from prefline import errors\ndef main():\n    {body}\nerrors.run(main)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_bad_input_is_one_sentence_and_a_nonzero_status():
    process = run_script("raise errors.InputError('data.jsonl, line 3: no text; add one')")
    assert process.returncode == 1
    assert process.stderr == "error: data.jsonl, line 3: no text; add one\n"
    assert process.stdout == ""


def test_our_own_faults_keep_their_traceback():
    process = run_script("{}['prompt_id']")
    assert process.returncode == 1
    assert process.stderr.startswith("Traceback") and process.stderr.endswith("KeyError: 'prompt_id'\n")


def test_a_script_that_ends_well_says_nothing():
    process = run_script("return 'ignored'")
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the kernel's parent death signal is Linux's"
)
def test_a_job_dies_with_the_parent_that_is_killed():
    job = """
import time
from prefline import errors
errors.run(lambda: (print("on", flush=True), time.sleep(600)))
"""
    parent = start(
        """
        import subprocess, sys, time
        job = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
        assert job.stdout.readline() == "on\\n"
        print(job.pid, flush=True)
        time.sleep(600)
        """,
        job,
    )
    pid = int(parent.first_line)
    os.kill(pid, 0)
    kill(parent)
    assert gone(pid)


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the kernel's parent death signal is Linux's"
)
def test_a_job_whose_parent_died_before_it_asked_dies_too(monkeypatch):
    """The kernel sends nothing for a death that has been: the parent's pid tells."""
    parents = iter([1234, 1])
    killed = []
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(os, "kill", lambda *arguments: killed.append(arguments))
    monkeypatch.setattr(
        errors.ctypes, "CDLL", lambda name: type("libc", (), {"prctl": staticmethod(lambda *a: 0)})
    )
    errors.die_with_parent()
    assert killed == [(os.getpid(), signal.SIGTERM)]

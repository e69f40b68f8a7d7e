"""How a run stands, from what Snakemake has told and what its jobs' logs say."""

import io
import json
import logging
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prefline.engines import generation_metrics
from prefline.errors import InputError
from prefline.machine import progress
from tools import progress as command

NOW = 1000.0
EVENTS = [
    {"event": "run", "time": 0, "jobs": {"generate": 5, "train": 1, "all": 1}},
    {
        "event": "started",
        "time": 800,
        "job": 1,
        "rule": "generate",
        "wildcards": ["sft", "a"],
        "log": ["a.txt"],
    },
    {"event": "finished", "time": 900, "job": 1},
    {
        "event": "started",
        "time": 900,
        "job": 2,
        "rule": "generate",
        "wildcards": ["sft", "b"],
        "log": ["b.txt"],
    },
    {
        "event": "started",
        "time": 900,
        "job": 3,
        "rule": "generate",
        "wildcards": ["sft", "c"],
        "log": ["c.txt"],
    },
    {"event": "started", "time": 900, "job": 4, "rule": "train", "wildcards": ["dpo", "1"], "log": ["t.txt"]},
    {"event": "failed", "time": 950, "job": 4},
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run with a job done, one that runs, one that a scheduler has not started, and one that has failed."""
    monkeypatch.chdir(tmp_path)
    record(EVENTS)
    Path("b.txt").write_text(
        "loading\n1 of 8 prompts, 9 tokens, 1 tokens/s, 9:00:00 left\n" + line(30, 150) + "noise\n"
    )
    Path("c.txt").write_text(line(70, 10))  # of a try before
    os.utime("b.txt", (990, 990))
    os.utime("c.txt", (700, 700))
    return tmp_path


def line(done, left):
    """What a generation prints, as it prints it."""
    shard = generation_metrics.Progress({"p": 1, "q": 1})
    shard.total, shard.completions, shard.tokens = done + left, done, 1200
    shard.began = time.monotonic() - done
    return shard.line() + "\n"


def record(events, **more):
    own = {"pid": os.getpid(), "host": os.uname().nodename} | more
    progress.RECORD.parent.mkdir(exist_ok=True)
    lines = [json.dumps(event | own if event["event"] == "run" else event) for event in events]
    progress.RECORD.write_text("\n".join(lines) + "\n")


def test_by_rule_what_is_done_runs_waits_and_failed(folder):
    run = progress.read()
    assert {number: job.state for number, job in run.jobs.items()} == {
        1: "finished",
        2: "running",
        3: "started",
        4: "failed",
    }
    assert (run.jobs[2].rate, run.jobs[2].left) == (40, 150)
    # Worked by hand: jobs take 100 s and 100 + 150 s; 3 of the mean 175 wait behind the one that runs.
    assert run.left("generate", NOW) == pytest.approx(150 + 3 * 175)
    assert run.left("all", NOW) is None
    lines = progress.table(run, NOW)
    assert lines[0] == "1 of 7 jobs done, 1 running, 1 queued, 1 failed, 0:16:40 so far"
    assert lines[1] == "failed   train dpo 1  t.txt"
    assert lines[2] == "running  generate sft b  0:01:40"
    assert lines[3] == "         0 of 2 prompts, 1200 tokens, 40 tokens/s, 0:02:30 left"
    assert [row.split() for row in lines[5:]] == [
        ["generate", "1/5", "1", "1", "40", "0:11:15"],
        ["train", "0/1", "1"],
        ["all", "0/1"],
    ]
    assert lines[6].index("1", lines[6].index("0/1") + 3) > lines[5].rindex("1  ")  # under failed


def test_a_run_that_is_over_or_killed_is_not_taken_for_one_that_goes_on(folder):
    record([*EVENTS, {"event": "end", "time": 980}])
    assert progress.table(progress.read(), NOW)[0].endswith("0:16:20 so far; over")
    child = subprocess.Popen(["true"])
    child.wait()
    record(EVENTS, pid=child.pid)
    lines = progress.table(progress.read(), NOW)
    assert lines[0].startswith("1 of 7 jobs done, 0 running, 1 failed, 2 stopped, ")
    assert lines[0].endswith("so far; Snakemake is gone")
    record(EVENTS, pid=child.pid, host="elsewhere")
    assert progress.is_alive(progress.read())


def test_a_line_that_is_half_written_waits(folder):
    with open(progress.RECORD, "a") as file:
        file.write('{"event": "finished", "ti')
    assert progress.read().jobs[2].state == "running"


ODD = [
    *(b'{"event": "fin\x07ished"}', b"\xff\x00", b"[]", b"null", b"{", b'{"event": "started"}'),
    b'{"event": "end"}',
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_a_line_that_holds_no_event_is_left_out_and_named_once(folder, odd):
    progress.RECORD.write_bytes(odd + b"\n" + progress.RECORD.read_bytes())
    run = progress.read()
    assert run.jobs[1].state == "finished"
    (named,) = [line for line in progress.table(run, NOW) if "not an event" in line]
    assert named == f"{progress.RECORD}: ignored what is not an event, line 1"


def test_control_characters_of_a_log_do_not_reach_the_terminal(folder):
    Path("b.txt").write_text("1 of 8 prompts, \x1b[31m9 tokens\x07\n")
    assert "\x1b" not in "".join(progress.table(progress.read(), NOW))


def test_a_disk_that_is_full_costs_the_record_alone(tmp_path):
    recorder = progress.Recorder("/dev/full")
    recorder.begin()
    recorder.emit(logging.makeLogRecord({"event": "job_finished", "job_id": 1}))
    recorder.close()
    progress.Recorder(tmp_path / "file/not/folder").begin()


def test_without_a_run_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no run of Snakemake has begun in this folder"):
        command.main([])


def watch(folder, output):
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "COLUMNS": "", "LINES": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "tools.progress", "--watch"], cwd=folder, env=environment, stdout=output
    )


def test_a_terminal_is_written_in_place_until_the_run_is_over(folder, monkeypatch):
    reader, terminal = pty.openpty()
    os.set_blocking(reader, False)
    monkeypatch.chdir(Path(__file__).parents[2])
    process = watch(folder, terminal)
    os.close(terminal)
    said = read_until(reader, b"left\r\n")
    monkeypatch.chdir(folder)
    record([*EVENTS, {"event": "finished", "time": 980, "job": 2}, {"event": "end", "time": 980}])
    assert process.wait(120) == 0
    said += read_until(reader, b"so far; over")
    lines = said.count("\n", 0, said.index("\x1b[", 3))
    assert f"\x1b[{lines}A\x1b[J2 of 7 jobs done" in said, "the second table stands where the first stood"
    os.close(reader)


def read_until(reader, words):
    said, end = b"", time.monotonic() + 120
    while words not in said and time.monotonic() < end:
        if select.select([reader], [], [], 0.1)[0]:
            said += os.read(reader, 65536)
    return said.decode()


def test_elsewhere_a_line_is_written_for_each_job_that_starts_or_ends(folder):
    told, out = {}, io.StringIO()
    for now in (NOW, NOW + 30, NOW + 61, NOW + 90):
        command.tell(progress.read(), told, now, out)
    record([*EVENTS, {"event": "finished", "time": 980, "job": 2}, {"event": "end", "time": 980}])
    command.tell(progress.read(), told, NOW + 91, out)
    said = "0 of 2 prompts, 1200 tokens, 40 tokens/s, 0:02:30 left"
    assert out.getvalue().splitlines() == [
        "1/7  finished  generate sft a  0:01:40",
        f"1/7  running   generate sft b  {said}",
        "1/7  failed    train dpo 1  t.txt",
        f"1/7  running   generate sft b  {said}",
        "2/7  finished  generate sft b  0:01:20",
    ]


def test_what_a_small_terminal_cannot_hold_is_said(folder, monkeypatch, capsys):
    monkeypatch.setenv("LINES", "5")
    monkeypatch.setenv("COLUMNS", "20")
    shown = command.show([f"{number} " + "x" * 30 for number in range(9)], 0, sys.stdout)
    lines = capsys.readouterr().out.removeprefix("\x1b[J").splitlines()
    assert shown == len(lines) == 4
    assert max(map(len, lines)) < 20
    assert lines[-1].startswith("… and 6 lines more")

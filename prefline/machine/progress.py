"""Record the jobs that Snakemake has started, finished and seen fail, for `python -m tools.progress`.

With every executor, Snakemake reports each job's events and log file to its loggers. Its process writes
them to RECORD, a line of JSON for each event, and replaces the record of the previous run:

    {"event": "run", "time", "pid", "host", "jobs": {rule: number}}
    {"event": "started", "time", "job", "rule", "wildcards": [values], "log": [paths]}
    {"event": "finished" or "failed", "time", "job"}
    {"event": "end", "time"}
"""

import json
import logging
import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from prefline.machine.durations import clock

RECORD = Path(".snakemake/prefline_progress.jsonl")
# {Snakemake's name of an event: (Prefline's name, field with the job's number)}
ENDS = {"job_finished": ("finished", "job_id"), "job_error": ("failed", "jobid")}
# A log line that shows a job's progress, and the numbers that it may have.
LINE = re.compile(r"^(step \d+/\d+ |\d+ of \d+ ).*", re.M)
RATE = re.compile(r"([\d.]+) tokens/s")
LEFT = re.compile(r"(\d+):(\d\d):(\d\d) left")
# Number of bytes to read at a log's end.
TAIL = 4096


class Recorder(logging.Handler):
    """A handler of Snakemake's events, which writes nothing before `begin`; dry runs never call that."""

    def __init__(self, path=RECORD):
        super().__init__()
        self.path, self.jobs, self.file = Path(path), {}, None

    def begin(self):
        try:
            self.path.parent.mkdir(exist_ok=True)
            self.file = open(self.path, "w", encoding="utf-8")  # noqa: SIM115
        except OSError:
            return  # the run continues unwatched
        self._write("run", pid=os.getpid(), host=os.uname().nodename, jobs=self.jobs)

    def emit(self, record):
        try:
            self._take(record)
        except Exception:  # another version of Snakemake may send other events; the run continues unwatched
            self.file = None

    def _take(self, record):
        event = str(getattr(record, "event", None))
        if event == "run_info":
            self.jobs = {rule: number for rule, number in record.stats.items() if rule != "total"}
        elif event == "job_info":
            wildcards = [str(value) for value in (record.wildcards or {}).values()]
            self._write(
                "started", job=record.jobid, rule=record.rule_name, wildcards=wildcards, log=list(record.log)
            )
        elif event in ENDS:
            kind, number = ENDS[event]
            self._write(kind, job=getattr(record, number))

    def close(self):
        self._write("end")
        if self.file is not None:
            self.file.close()
            self.file = None
        super().close()

    def _write(self, event, **values):
        if self.file is None:
            return
        try:
            self.file.write(json.dumps({"event": event, "time": time.time(), **values}) + "\n")
            self.file.flush()
        except OSError:
            self.file = None


@dataclass
class Job:
    """A job, with its progress from its log."""

    rule: str
    wildcards: list
    log: list
    started: float
    state: str = "started"
    seconds: float | None = None  # duration, once the job has ended
    said: str = ""  # the last line of its log that shows progress
    rate: float | None = None  # tokens per second
    left: float | None = None  # seconds

    @property
    def name(self):
        return " ".join([self.rule, *self.wildcards])


@dataclass
class Run:
    """A run of Snakemake: `wanted` is the number of jobs by rule, `jobs` has the started ones by id."""

    wanted: Counter
    pid: int
    host: str
    began: float
    jobs: dict = field(default_factory=dict)
    ended: float | None = None
    unread: list = field(default_factory=list)  # numbers of the record's lines without an event

    def of(self, rule, *states):
        return [job for job in self.jobs.values() if job.rule == rule and job.state in states]

    @property
    def rules(self):
        """Return the rules in the order in which they began, then the waiting ones."""
        return list(dict.fromkeys([job.rule for job in self.jobs.values()] + list(self.wanted)))

    def left(self, rule, now):
        """Return the estimated seconds (float) until all jobs of a rule are done; None without any data.

        The estimate takes the mean duration of finished jobs and the expected one of running jobs, and the
        present number of jobs at once.
        """
        running = self.of(rule, "running")
        times = [job.seconds for job in self.of(rule, "finished")]
        times += [now - job.started + job.left for job in running if job.left is not None]
        if not times:
            return None
        usual = sum(times) / len(times)
        rest = sum(usual - (now - job.started) if job.left is None else job.left for job in running)
        rest += usual * (self.wanted[rule] - len(self.of(rule, "finished", "failed")) - len(running))
        return max(rest, 0.0) / max(len(running), 1)


def read(path=RECORD):
    """Return the Run that is recorded in `path`; None if there is none. Ignore an incomplete last line."""
    if not Path(path).exists():
        return None
    run, unread = None, []
    for number, line in enumerate(Path(path).read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        try:
            run = _after(run, json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            unread.append(number)
    if run:
        run.unread = unread
    for job in run.jobs.values() if run else ():
        if job.state == "started" and is_alive(run):
            _look(job)
        elif job.state == "started":
            job.state = "stopped"
    return run


def _after(run, event):
    """Apply an event (dict) of the record to a Run, None before the first, and return the Run.

    Raises ValueError, KeyError, TypeError or AttributeError for a line that is not an event.
    """
    kind, when = event["event"], float(event["time"])
    if kind == "run":
        return Run(Counter(event["jobs"]), event["pid"], event["host"], when)
    if kind == "started":
        run.jobs[event["job"]] = Job(event["rule"], event["wildcards"], event["log"], when)
    elif kind in ("finished", "failed") and event["job"] in run.jobs:
        job = run.jobs[event["job"]]
        job.state, job.seconds = kind, when - job.started
    elif kind == "end":
        run.ended = when
    return run


def _look(job):
    """Read from its log whether a started job is running yet, and its progress.

    Under a scheduler it may wait in the queue. A rule's first command creates its log again.
    """
    logs = [Path(log) for log in job.log if Path(log).exists()]
    if job.log and not any(log.stat().st_mtime >= int(job.started) for log in logs):
        return
    job.state = "running"
    for log in logs:
        with open(log, "rb") as file:
            file.seek(max(log.stat().st_size - TAIL, 0))
            lines = LINE.finditer(file.read().decode(errors="replace").replace("\r", "\n"))
        for line in lines:
            job.said = "".join(filter(str.isprintable, line[0])).strip()
    if rate := RATE.search(job.said):
        job.rate = float(rate[1])
    if left := LEFT.search(job.said):
        hours, minutes, seconds = map(int, left.groups())
        job.left = hours * 3600 + minutes * 60 + seconds


def is_alive(run):
    """Return whether the Snakemake of a Run may be running; True on another machine."""
    if run.ended is not None:
        return False
    if run.host != os.uname().nodename:
        return True
    try:
        os.kill(run.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def table(run, now):
    """Return the state of a Run as lines (list of str): failed and running jobs, then all rules.

    Rules with running, waiting or failed jobs come first, since a terminal may not show all rules.
    """
    jobs, alive = list(run.jobs.values()), is_alive(run)
    states = Counter(job.state for job in jobs)
    counts = [f"{states['finished']} of {sum(run.wanted.values())} jobs done", f"{states['running']} running"]
    counts += [f"{states['started']} queued"] if states["started"] else []
    counts += [f"{states[state]} {state}" for state in ("failed", "stopped") if states[state]]
    over = "" if alive else "; over" if run.ended else "; Snakemake is gone"
    lines = [f"{', '.join(counts)}, {clock((run.ended or now) - run.began)} so far{over}"]
    if run.unread:
        numbers = ", ".join(map(str, run.unread[:5])) + (", …" if len(run.unread) > 5 else "")
        lines.append(f"{RECORD}: ignored what is not an event, line {numbers}")
    for job in jobs:
        if job.state == "failed":
            lines.append(f"failed   {job.name}  {' '.join(job.log)}".rstrip())
    for job in jobs:
        if job.state == "running":
            lines.append(f"running  {job.name}  {clock(now - job.started)}")
            lines += [f"         {job.said}"] if job.said else []
    rows = [("", "done", "running", "queued", "failed", "tokens/s", "left")]
    rows += [_row(run, rule, alive, now) for rule in sorted(run.rules, key=lambda rule: _rank(run, rule))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *aligned]).rstrip())
    return lines


def _rank(run, rule):
    """Return a rule's sort key (int): first running, waiting or failed jobs, last finished rules."""
    if run.of(rule, "running", "started", "failed"):
        return 0
    return 1 if len(run.of(rule, "finished")) < run.wanted[rule] else 2


def _row(run, rule, alive, now):
    """Return the table's row for a rule (list of str)."""
    done, running = len(run.of(rule, "finished")), run.of(rule, "running")
    wanted = max(run.wanted[rule], done)
    rates = [job.rate for job in running if job.rate is not None]
    counts = [len(running), len(run.of(rule, "started")), len(run.of(rule, "failed"))]
    left = run.left(rule, now) if done + counts[-1] < wanted and alive else None
    return [
        rule,
        f"{done}/{wanted}",
        *(str(count or "") for count in counts),
        f"{sum(rates):.0f}" if rates else "",
        "" if left is None else clock(left),
    ]

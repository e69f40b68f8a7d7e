"""What Snakemake has started, finished and seen fail, written down for `python -m tools.progress`.

Snakemake tells its loggers what happens to each job, with its log file, under every executor. Its process
writes that to RECORD, a line of JSON for each event; the record of the run before is replaced:

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
# What Snakemake calls these events: what we do, and where it has the job's number.
ENDS = {"job_finished": ("finished", "job_id"), "job_error": ("failed", "jobid")}
# A line of a log that says how far its job is, and what it may hold.
LINE = re.compile(r"^(step \d+/\d+ |\d+ of \d+ ).*", re.M)
RATE = re.compile(r"([\d.]+) tokens/s")
LEFT = re.compile(r"(\d+):(\d\d):(\d\d) left")
# How much of a log's end is looked at.
TAIL = 4096


class Recorder(logging.Handler):
    """Takes Snakemake's events; writes nothing before `begin`, which no dry run reaches."""

    def __init__(self, path=RECORD):
        super().__init__()
        self.path, self.jobs, self.file = Path(path), {}, None

    def begin(self):
        try:
            self.path.parent.mkdir(exist_ok=True)
            self.file = open(self.path, "w", encoding="utf-8")  # noqa: SIM115
        except OSError:
            return  # a run goes on without being watched
        self._write("run", pid=os.getpid(), host=os.uname().nodename, jobs=self.jobs)

    def emit(self, record):
        try:
            self._take(record)
        except Exception:  # whatever another version of Snakemake tells: a run goes on without being watched
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
    """A job, and what its log says of it."""

    rule: str
    wildcards: list
    log: list
    started: float
    state: str = "started"
    seconds: float | None = None  # that it took, once it is over
    said: str = ""  # the last line of its log that says how far it is
    rate: float | None = None  # tokens per second
    left: float | None = None  # seconds

    @property
    def name(self):
        return " ".join([self.rule, *self.wildcards])


@dataclass
class Run:
    """A run of Snakemake: wanted is the number of jobs by rule, jobs are those that were started, by id."""

    wanted: Counter
    pid: int
    host: str
    began: float
    jobs: dict = field(default_factory=dict)
    ended: float | None = None

    def of(self, rule, *states):
        return [job for job in self.jobs.values() if job.rule == rule and job.state in states]

    @property
    def rules(self):
        """The rules in the order in which they began, then those that wait."""
        return list(dict.fromkeys([job.rule for job in self.jobs.values()] + list(self.wanted)))

    def left(self, rule, now):
        """Estimated seconds until all jobs of a rule are done (float); None if nothing tells.

        The others are taken to last as long as those that are done, or as the running ones say that they
        will, and as many to run at once as do now.
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
    """The Run that is recorded in `path`; None if there is none.

    A line that is being written is left for the next time.
    """
    if not Path(path).exists():
        return None
    run = None
    for line in Path(path).read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        event = json.loads(line)
        kind, when = event["event"], event["time"]
        if kind == "run":
            run = Run(Counter(event["jobs"]), event["pid"], event["host"], when)
        elif kind == "started":
            run.jobs[event["job"]] = Job(event["rule"], event["wildcards"], event["log"], when)
        elif kind in ("finished", "failed") and event["job"] in run.jobs:
            job = run.jobs[event["job"]]
            job.state, job.seconds = kind, when - job.started
        elif kind == "end":
            run.ended = when
    for job in run.jobs.values() if run else ():
        if job.state == "started" and is_alive(run):
            _look(job)
        elif job.state == "started":
            job.state = "stopped"
    return run


def _look(job):
    """Read from its log whether a job that Snakemake has started runs yet, and how far it is.

    Under a scheduler it may wait: a rule's first command makes its log anew.
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
            job.said = line[0].strip()
    if rate := RATE.search(job.said):
        job.rate = float(rate[1])
    if left := LEFT.search(job.said):
        hours, minutes, seconds = map(int, left.groups())
        job.left = hours * 3600 + minutes * 60 + seconds


def is_alive(run):
    """Whether the Snakemake of a Run may still be at work; on another machine that is not known."""
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
    """How a Run stands, as lines (list of str): its jobs that have failed or run, then all rules.

    Rules at which something is to be seen come first: a terminal may not hold all of them.
    """
    jobs, alive = list(run.jobs.values()), is_alive(run)
    states = Counter(job.state for job in jobs)
    counts = [f"{states['finished']} of {sum(run.wanted.values())} jobs done", f"{states['running']} running"]
    counts += [f"{states['started']} queued"] if states["started"] else []
    counts += [f"{states[state]} {state}" for state in ("failed", "stopped") if states[state]]
    over = "" if alive else "; over" if run.ended else "; Snakemake is gone"
    lines = [f"{', '.join(counts)}, {clock((run.ended or now) - run.began)} so far{over}"]
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
    """A place (int): first rules with jobs that run, wait or have failed, last those that are done."""
    if run.of(rule, "running", "started", "failed"):
        return 0
    return 1 if len(run.of(rule, "finished")) < run.wanted[rule] else 2


def _row(run, rule, alive, now):
    """What the table says of a rule (list of str)."""
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

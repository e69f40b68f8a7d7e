"""Run the checks of a plan before its other jobs, and show in one table what all of them found.

A check is a job of rules/checks*.smk. It writes results/checks/{what}/{name}.json, with one sentence under
`found`. Checks need only finished models and other checks, so they can run first. Snakemake's scheduler gets
no other job before they have passed and all models are fetched, and it runs all of them even if one fails.
"""

import contextlib
import functools
import logging
import os
import sys
from pathlib import Path
from typing import NamedTuple

from prefline import files

FOLDER = Path("results/checks")
TABLE = FOLDER / "table.txt"
TAIL_BYTES = 20_000


class Row(NamedTuple):
    """A line of the table.

    state: passed, FAILED, skipped or not run; name: {what}/{name}; found: a sentence.
    """

    state: str
    name: str
    found: str


class Front(NamedTuple):
    """The jobs of a plan that run first: its checks, those that fetch models, and what these need."""

    checks: set
    jobs: set


class Triggered:
    """The jobs that a job triggers, by that job: without those that read only its `ancient` files."""

    def __init__(self, depending):
        self.depending = depending

    def __getitem__(self, job):
        return {
            other: files
            for other, files in self.depending[job].items()
            if not all(file.is_ancient and os.path.exists(file) for file in files)
        }


def notice_edits_after_ancient_files(dag_class):
    """Make Snakemake compare params and code of all jobs that no other job triggers.

    It compares none of those that come after a job that runs, and forgets that ancient files trigger nothing:
    an edit that runs a check would leave what comes after the check stale.
    """
    search = dag_class.__dict__.get("prefline_bfs", dag_class.bfs)

    def bfs(dag, direction, *jobs, **options):
        if direction is dag.depending:
            direction = Triggered(direction)
        return search(dag, direction, *jobs, **options)

    dag_class.prefline_bfs, dag_class.bfs = search, bfs


class Refetched:
    """The jobs that depend on a job, by that job: none on one that only puts back what is missing."""

    def __init__(self, dag, depending, fetches):
        self.dag, self.depending, self.fetches = dag, depending, fetches

    def __getitem__(self, job):
        if self.fetches(job) and self._made_before(job):
            return {}
        return self.depending[job]

    def _made_before(self, job):
        """Return whether the job would make again what some of its outputs are left of."""
        known = self.dag.workflow.persistence
        forced = job.rule in self.dag.forcerules or not self.dag.forcefiles.isdisjoint(job.output)
        return (
            not forced
            and any(os.path.isfile(path) for path in job.output)
            and known.has_metadata(job)
            and not known.params_changed(job)
            and not any(known.input_changed(job))
            and not any(known.code_changed(job))
            and not any(known.software_stack_changed(job))
        )


def refetch_alone(dag_class, fetches):
    """Make Snakemake fetch a missing directory without running again what was made from it before.

    The params of the job hold all that shapes the content of its outputs, and what is left of them (the
    manifest) is unchanged. fetches: a function that tells whether a job is of this kind.
    """
    update = dag_class.__dict__.get("prefline_update", dag_class.update_needrun)

    async def update_needrun(dag, *arguments, **options):
        depending = dag.depending
        dag.depending = Refetched(dag, depending, fetches)
        try:
            return await update(dag, *arguments, **options)
        finally:
            dag.depending = depending

    dag_class.prefline_update, dag_class.update_needrun = update, update_needrun


def hold_back(dag_class, scheduler_class, refuse, tell):
    """Make Snakemake's classes run the checks of a plan first, and all of them.

    refuse(jobs): raises the rules' Refusal for jobs that the machine cannot hold. It is called when a plan is
    made, and again when all models are fetched. tell(dag): prints about a plan that was not refused.
    """
    dag_class.ready_jobs = property(functools.partial(_startable, refuse, tell))
    scheduler_class.keepgoing = property(
        lambda scheduler: scheduler.__dict__["keepgoing"] or _checking(scheduler),
        lambda scheduler, value: scheduler.__dict__.update(keepgoing=value),
    )


def _startable(refuse, tell, dag):
    """Return `ready`; first have `refuse` see the jobs of the plan, then `tell`."""
    stage, before = _passed(dag), dag.__dict__.get("prefline_sized")
    if before != stage:
        dag.prefline_sized = stage
        refuse(dag.needrun_jobs())
        if before is None:
            tell(dag)
    return ready(dag)


def _passed(dag):
    """Return whether all jobs that run first have ended well."""
    return all(map(dag.finished, front(dag).jobs))


def ready(dag):
    """Return the jobs that Snakemake may start now: until all checks have passed, only the front."""
    jobs, first = dag._ready_jobs, front(dag)
    if _passed(dag):
        return jobs
    return {job for job in jobs if not first.jobs.isdisjoint(job if job.is_group() else [job])}


def _checking(scheduler):
    """Return whether some check, or what it needs, is running or may start."""
    dag = scheduler.workflow.dag
    if _passed(dag):
        return False
    return bool(ready(dag)) or not front(dag).jobs.isdisjoint(scheduler.running)


def front(dag):
    """Return the Front of a plan, found once; have a dry run name the checks in it."""
    if "prefline_front" not in dag.__dict__:
        made = {job for job in dag.needrun_jobs() if is_check(job.rule)}
        first = made | {job for job in dag.needrun_jobs() if job.rule.name == "fetch_model"}
        needed = {each for job in first for each in dag.bfs(dag.dependencies, job) if dag.needrun(each)}
        dag.prefline_front = Front(made, first | needed)
        if made and dag.workflow.dryrun:
            names = ", ".join(sorted(name_of(job.output[0]) for job in made))
            said = f"Checks that have not passed yet, and run before all other jobs: {names}"
            logging.getLogger("snakemake.logging").info(said)
    return dag.prefline_front


def is_check(rule):
    """Return whether a rule of Snakemake is a check."""
    return Path(rule.snakefile).stem.startswith("checks") and bool(rule.output)


def name_of(path):
    """Return {what}/{name} (str) of a check's output."""
    return str(Path(path).relative_to(FOLDER).with_suffix(""))


def show_failures(dag, skipped):
    """Print the table on stderr if a check failed, and write it. skipped: {name: reason}."""
    found = rows(dag, skipped)
    if any(row.state == "FAILED" for row in found):
        print(f"\nChecks failed, so nothing else was started:\n{table(found)}", end="", file=sys.stderr)
        with contextlib.suppress(OSError):  # a full disk may be what failed
            files.write_text(TABLE, table(found))


def rows(dag, skipped):
    """Return Rows of all checks of a plan, of failed jobs that these need, and of skipped: {name: reason}."""
    first, found = front(dag), []
    for job in filter(lambda job: is_check(job.rule), dag.jobs):
        if job not in first.checks or dag.finished(job):
            found.append(passed(job.output[0]))
        else:
            found.append(_unfinished(job, name_of(job.output[0])))
    needed = [job for job in first.jobs - first.checks if not dag.finished(job)]
    fetched = [_unfinished(job, f"{job.rule.name}/{Path(job.output[0]).stem}") for job in needed]
    return [*found, *(row for row in fetched if row.state == "FAILED"), *left_out(skipped)]


def _unfinished(job, name):
    said = failure(job.log)
    return Row("FAILED" if said else "not run", name, said)


def passed(path):
    """Return the Row of a check that wrote `path`."""
    return Row("passed", name_of(path), files.read_json(path)["found"])


def left_out(skipped):
    """Return the Rows of checks that cannot be made: {name: reason}."""
    return [Row("skipped", name, reason) for name, reason in skipped.items()]


def failure(logs):
    """Return the sentence with which a job's logs end (str); "" without a log."""
    for log in map(Path, logs):
        if log.is_file():
            with open(log, "rb") as file:
                file.seek(max(0, log.stat().st_size - TAIL_BYTES))
                lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith("error: ")] or lines
            return errors[-1].removeprefix("error: ") if errors else ""
    return ""


def table(found):
    """Return Rows as a table (str), failures first."""
    order = ("FAILED", "not run", "passed", "skipped")
    lines = sorted(found, key=lambda row: (order.index(row.state), row.name))
    width = max((len(row.name) for row in lines), default=0)
    return "".join(f"{row.state:8} {row.name:{width}}  {row.found}".rstrip() + "\n" for row in lines)

"""Show the progress of a Snakemake run: jobs done, running, waiting and failed by rule, tokens/s, time left.

    python -m tools.progress             print it once
    python -m tools.progress --watch     update it until the run is over: on a terminal in place,
                                           otherwise a line for each job that starts or ends, and
                                           once a minute for one that runs

Use it in a second terminal, or a day later: it reads the main Snakemake process's file
(prefline/machine/progress.py) and the jobs' logs, also of jobs on other machines. `left` is an estimate from
the logs of running jobs and the durations of finished jobs of the same rule.
"""

import shutil
import sys
import time

from prefline import errors
from prefline.config import section
from prefline.errors import InputError
from prefline.machine import progress
from prefline.machine.durations import clock

SECONDS = 2.0  # between two updates
MINUTE = 60.0


def show(lines, before, out):
    """Write `lines` (list of str) over the last `before` (int) lines; return how many were written.

    Write at most as many as the terminal holds, since scrolled lines cannot be replaced.
    """
    columns, rows = shutil.get_terminal_size()
    if len(lines) >= rows:
        lines = [*lines[: rows - 2], f"… and {len(lines) - rows + 2} lines more: without --watch"]
    lines = [line[: columns - 1] for line in lines]
    up = f"\x1b[{before}A" if before else ""
    out.write(f"{up}\x1b[J" + "".join(f"{line}\n" for line in lines))
    out.flush()
    return len(lines)


def tell(run, told, now, out):
    """Write to `out` what has happened since `told`, {number of a job: (its state, when that was told)}.

    A running job's progress is written once a minute.
    """
    done = f"{sum(job.state == 'finished' for job in run.jobs.values())}/{sum(run.wanted.values())}"
    for number, job in run.jobs.items():
        state, when = told.get(number, ("started", now))
        said = {"running": job.said, "finished": clock(job.seconds or 0), "failed": " ".join(job.log)}
        if job.state in said and (job.state != state or (job.state == "running" and now - when > MINUTE)):
            print(f"{done}  {job.state:<8}  {job.name}  {said[job.state]}".rstrip(), file=out, flush=True)
            when = now
        told[number] = job.state, when


def watch(out):
    """Write the progress of the run to `out` until it is over."""
    told, before = {}, 0
    while True:
        run, now = progress.read(), time.time()
        if out.isatty():
            before = show(progress.table(run, now), before, out)
        else:
            tell(run, told, now, out)
        if not progress.is_alive(run):
            return
        time.sleep(SECONDS)


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--watch", action="store_true", help="until the run is over")
    args = parser.parse_args(argv)
    if progress.read() is None:
        raise InputError(f"there is no {progress.RECORD}: no run of Snakemake has begun in this folder")
    if args.watch:
        watch(sys.stdout)
    if not args.watch or not sys.stdout.isatty():
        print("\n".join(progress.table(progress.read(), time.time())))


if __name__ == "__main__":
    errors.run(main)

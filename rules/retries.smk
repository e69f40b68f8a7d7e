# `retries` in a profile is for the machine's faults: a job that fails for a reason of its own fails once.
#
# Snakemake asks a failed job how often it may be tried; it has no setting that tells failures apart.

import time

from snakemake.jobs import Job

from scripts.common import faults

STARTED = time.time()

Job.restart_times = property(
    lambda job: 0 if any(faults.final(log, STARTED) for log in job.log) else job.rule.restart_times
)

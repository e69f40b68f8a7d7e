"""Distinguish failures that would repeat from failures of the machine, which `retries` are for.

Errors for bad input and tracebacks of bugs are the same at every attempt. Other failures (a killed process, a
time limit, no memory, a failing network, disk or driver) may not return.
"""

import os
import re

# A user's mistake prints one line (prefline/errors.py). A bug prints a traceback; this matches its last line.
FINAL = re.compile(
    r"^(error: |(\w+\.)*(Type|Value|Key|Index|Attribute|Assertion|Name|Import|ModuleNotFound|NotImplemented"
    r"|ZeroDivision|Syntax)Error\b)",
    re.MULTILINE,
)
TAIL_BYTES = 20_000


def final(log, since):
    """Return whether the job with this log (path) failed for a reason that another attempt would meet.

    since: seconds since the epoch; an older log belongs to another job.
    """
    try:
        with open(log, "rb") as file:
            if os.fstat(file.fileno()).st_mtime < since:
                return False
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return FINAL.search(file.read().decode(errors="replace")) is not None
    except OSError:
        return False

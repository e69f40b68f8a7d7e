"""Which failures another attempt would meet again: `retries` is for those of the machine.

What a script says of bad input, and Python of a program's fault, is the same at every attempt. All else (a
killed process, a time limit, no memory, a network or a disk that fails, a driver's error) may be gone.
"""

import os
import re

# A user's mistake is one sentence (prefline/errors.py); a program's is the last line of a traceback.
FINAL = re.compile(
    r"^(error: |(\w+\.)*(Type|Value|Key|Index|Attribute|Assertion|Name|Import|ModuleNotFound|NotImplemented"
    r"|ZeroDivision|Syntax)Error\b)",
    re.MULTILINE,
)
TAIL_BYTES = 20_000


def final(log, since):
    """Whether the job whose log this is (path) failed for a reason of its own.

    since: seconds since the epoch; an older log is not that of this job.
    """
    try:
        with open(log, "rb") as file:
            if os.fstat(file.fileno()).st_mtime < since:
                return False
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return FINAL.search(file.read().decode(errors="replace")) is not None
    except OSError:
        return False

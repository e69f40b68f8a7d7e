"""What a script says at its end."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

LINES = "from prefline import errors; errors.run(lambda: [print('x' * 100) for _ in range(5000)])"
OTHER = """
import os
from prefline import errors
def main():
    reading, writing = os.pipe()
    os.close(reading)
    os.write(writing, b"x")
errors.run(main)
"""


def said(code, *after):
    """What `code` writes to stderr if its output goes to a command."""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        subprocess.run(after, stdin=process.stdout, stdout=subprocess.DEVNULL, check=True)
        process.stdout.close()
        return process.stderr.read().decode()


def test_output_that_nobody_reads_to_its_end_is_no_traceback():
    assert said(LINES, "head", "-1") == ""
    assert "BrokenPipeError" in said(OTHER, "cat")

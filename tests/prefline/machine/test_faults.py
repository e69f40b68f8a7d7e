"""What another attempt would meet again is not tried again; what may be the machine's fault is."""

import os
import subprocess
import sys

import pytest

from prefline.machine import faults

RAISING = "from prefline import errors\ndef main(): {}\nerrors.run(main)"


@pytest.mark.parametrize(
    ("body", "final"),
    [
        ("raise errors.InputError('row 3: no prompt; give one')", True),
        ("{}['prompt_id']", True),
        ("import nowhere", True),
        ("int('x')", True),
        ("raise OSError(28, 'No space left on device')", False),
        ("raise RuntimeError('CUDA error: an illegal memory access was encountered')", False),
        ("raise MemoryError", False),
        ("raise errors.MachineError('the server that this job started ended')", False),
        ("print('no error: here') or exit(1)", False),
        ("import os; os.kill(os.getpid(), 9)", False),
    ],
)
def test_the_end_of_a_log_tells_whose_fault_it_was(body, final, tmp_path):
    log = tmp_path / "log.txt"
    with open(log, "w") as file:
        subprocess.run([sys.executable, "-c", RAISING.format(body)], stdout=file, stderr=file)
    assert faults.final(log, 0) is final


def test_a_failure_of_the_machine_is_said_without_a_traceback():
    code = RAISING.format("raise errors.MachineError('the server ended')")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (1, "failed: the server ended\n")


def test_a_log_of_an_earlier_run_says_nothing(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("error: bad input\n")
    os.utime(log, (1000, 1000))
    assert not faults.final(log, 2000)
    assert not faults.final(tmp_path / "missing.txt", 0)

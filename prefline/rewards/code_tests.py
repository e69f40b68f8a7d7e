"""Run the tests of a program that a policy wrote; verifiers.py starts this file in the sandbox.

reads   task.json: code, tests (Python texts, or {"input", "output"}), seconds and megabytes of each test
writes  to stdout the outcome of each test (JSON): passed, failed, timeout or crash
"""

import contextlib
import json
import os
import resource
import secrets
import signal
import subprocess
import sys

MOST_OUTPUT = 10**6  # bytes that are compared
# The tests come only after the code has run, and what says that they were passed after them.
RUN = """
import sys
namespace = {"__name__": "__main__"}
exec(compile(open("program.py").read(), "program.py", "exec"), namespace)
tests, said = sys.__stdin__.read().split("\\0")
exec(compile(tests, "tests", "exec"), namespace)
sys.__stderr__.write(said)
sys.__stderr__.flush()
"""


def outcome(test, seconds, megabytes):
    """Return the outcome of a test (str)."""
    said = secrets.token_hex(16)
    asserts = isinstance(test, str)
    given = f"{test}\0{said}" if asserts else test["input"]
    with open("output", "wb") as output, open("errors", "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", RUN] if asserts else [sys.executable, "-I", "program.py"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            preexec_fn=lambda: limit(seconds, megabytes),
        )
    try:
        process.communicate(given.encode(), timeout=seconds)
    except subprocess.TimeoutExpired:
        return "timeout"
    finally:
        # Whatever the code has started, which in the sandbox is all but this process.
        if os.getcwd() == "/scratch":
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        process.wait()
    if process.returncode < 0:
        return "timeout" if process.returncode == -signal.SIGXCPU else "crash"
    with open("errors", "rb") as file:
        errors = file.read(MOST_OUTPUT)
    if b"MemoryError" in errors[-2000:]:
        return "crash"
    if asserts:
        return "passed" if process.returncode == 0 and errors.endswith(said.encode()) else "failed"
    with open("output", "rb") as file:
        output = file.read(MOST_OUTPUT).decode(errors="replace")
    same = [line.rstrip() for line in output.rstrip().splitlines()]
    wanted = [line.rstrip() for line in test["output"].rstrip().splitlines()]
    return "passed" if process.returncode == 0 and same == wanted else "failed"


def limit(seconds, megabytes):
    resource.setrlimit(resource.RLIMIT_AS, (megabytes * 10**6,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_OUTPUT * 10,) * 2)


def main():
    with open("task.json", encoding="utf-8") as file:
        task = json.load(file)
    with open("program.py", "w", encoding="utf-8") as file:
        file.write(task["code"])
    os.remove("task.json")
    print(json.dumps([outcome(test, task["seconds"], task["megabytes"]) for test in task["tests"]]))


if __name__ == "__main__":
    main()

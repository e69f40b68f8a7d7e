"""Call functions of `answers` in another process, which may loop, crash or eat memory.

python -m prefline.rewards.isolated MEGABYTES        (by `call` alone)
"""

import contextlib
import json
import os
import resource
import selectors
import subprocess
import sys

from prefline.errors import InputError
from prefline.rewards import NoReward

MEGABYTES = 4_000  # of address space
STARTING = 120.0  # seconds, in which a process must have imported its packages

_processes = {}  # {function's name: the process that calls it}


def call(name, completion, arguments, seconds):
    """Return the result (float) of a function of `answers`.

    arguments: dict that JSON takes; seconds: its time. Raises InputError as the function does, and NoReward
    if it takes too long or its process ends.
    """
    process = _processes.get(name)
    if process is None or process.poll() is not None:
        process = _processes[name] = _start(name)
    try:
        process.stdin.write(json.dumps([completion, arguments]).encode() + b"\n")
        process.stdin.flush()
        answer = _line(process, seconds)
    except OSError:
        answer = b""
    if not answer:
        ended = answer is not None
        process.kill()
        process.wait()
        del _processes[name]
        raise NoReward("crash" if ended else "timeout")
    found = json.loads(answer)
    if "error" in found:
        raise InputError(found["error"])
    if "crash" in found:
        raise NoReward(found["crash"])
    return found["reward"]


def _start(name):
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, name, str(MEGABYTES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    if not _line(process, STARTING):
        raise InputError(
            f"the verifier {name} does not start; is its package installed (math-verify, jsonschema)?"
        )
    return process


def _line(process, seconds):
    """Return the next line (bytes) of a process, b"" if it ended; None after `seconds`."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() if selector.select(seconds) else None


def main():
    from prefline.rewards import answers

    name, megabytes = sys.argv[1], int(sys.argv[2])
    with contextlib.suppress(ImportError):  # of the packages that this function needs
        import jsonschema  # noqa: F401
    if name == "math":
        import math_verify  # noqa: F401
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (megabytes * 10**6,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", file=results, flush=True)
    for line in sys.stdin:
        completion, arguments = json.loads(line)
        try:
            found = {"reward": getattr(answers, name)(completion, **arguments)}
        except InputError as error:
            found = {"error": str(error)}
        except MemoryError:
            found = {"crash": "memory"}
        except Exception as error:  # of a library, at an answer that it cannot take
            found = {"crash": type(error).__name__}
        print(json.dumps(found), file=results, flush=True)


if __name__ == "__main__":
    main()

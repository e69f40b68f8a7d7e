"""Dry runs of Snakemake, forked from a process that has imported it: imports are half of their time.

    python tests/helpers/dry_runs.py SOCKET

Each dry run is a process with its own arguments, folder and environment, and imports the project's modules
itself. It runs to the interpreter's end, as the command `snakemake` does.
"""

import atexit
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
# What Python and the modules imported at the start read from the environment: with others, a run starts anew.
STARTED = dict(os.environ)
AT_START = ("HOME", "LANG", "LC_", "LD_", "PYTHON", "SNAKEMAKE", "TMPDIR", "XDG_")


def at_start(environment):
    return {name: value for name, value in environment.items() if name.startswith(AT_START)}


def begin(words, directory, environment):
    """Run `snakemake` with `words` in a new process; return it, with its output."""
    return subprocess.run(
        ["snakemake", *words], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


def run(words, directory, environment):
    """Do the same in a process that is forked."""
    if at_start(environment) != at_start(STARTED):
        return begin(words, directory, environment)
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        socket.socket(socket.AF_UNIX) as ask,
    ):
        ask.connect(_server())
        asked = json.dumps({"words": words, "directory": str(directory), "environment": environment}).encode()
        socket.send_fds(ask, [len(asked).to_bytes(8, "big")], [out.fileno(), err.fileno()])
        ask.sendall(asked)
        said = ask.makefile().read()
        assert said, "the server of dry runs has ended"
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(
            ["snakemake", *words], int(said), out.read().decode(), err.read().decode()
        )


@functools.cache
def _server():
    """The path of the socket of this process' server."""
    return launch(__file__, tempfile.mkdtemp(), STARTED)


def launch(script, folder, environment):
    """Start a script that calls `serve`; the path of its socket in `folder`. Both end with this process."""
    path = f"{folder}/socket"
    process = subprocess.Popen([sys.executable, script, path], stdin=subprocess.PIPE, env=environment)

    def close():
        process.stdin.close()
        process.wait()
        shutil.rmtree(folder)

    atexit.register(close)
    while not os.path.exists(path):
        assert process.poll() is None, f"{script} did not start"
        time.sleep(0.05)
    return path


def prepare():
    """Import Snakemake, its plugins, and other packages that a dry run needs."""
    import gc

    import jsonschema
    import smart_open
    import snakemake.cli
    import snakemake.report.html_reporter

    snakemake.cli.get_argument_parser()
    gc.collect()
    gc.freeze()
    return jsonschema, smart_open


def serve(path):
    """Answer until the one who started this process ends; return only in the processes of dry runs."""
    import selectors

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{path}.new")
    listening.listen()
    os.rename(f"{path}.new", path)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    while sys.stdin not in [key.fileobj for key, _ in selector.select()]:
        answer, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            selector.close()
            return attend(answer)
        answer.close()
        while True:  # those that have ended
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
    os._exit(0)


def attend(answer):
    """Read what is asked, fork the dry run, in which this returns, and say how it ended."""
    size, files, *_ = socket.recv_fds(answer, 8, 2)
    asked = json.loads(answer.makefile("rb").read(int.from_bytes(size, "big")))
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answer.sendall(str(code).encode())
        os._exit(0)
    answer.close()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(files[0], 1)
    os.dup2(files[1], 2)
    for file in files:
        os.close(file)
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv[1:] = asked["words"]


if __name__ == "__main__":
    prepare()
    serve(sys.argv[1])
    import snakemake.cli
    from snakemake.workflow import Workflow

    Workflow._rundir = os.getcwd()  # which is found at the import
    sys.argv[0] = SNAKEMAKE
    sys.path[0] = str(Path(SNAKEMAKE).parent)
    sys.exit(snakemake.cli.main())

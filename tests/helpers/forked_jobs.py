"""Jobs forked from a process that has imported torch: imports are most of a small job's time.

    python tests/helpers/forked_jobs.py SOCKET

`start` gives a folder with a `python` for the PATH of Snakemake. For `python -m MODULE` it asks the process
at SOCKET, in which nothing of the project is imported: each job imports the project's modules itself.
"""

import os
import runpy
import sys
import tempfile
from pathlib import Path

import dry_runs

PYTHON = """#!{python} -IS
import json, os, socket, sys
if sys.argv[1:2] != ["-m"] or sys.argv[2].partition(".")[0] not in ("prefline", "scripts"):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
asked = {{"words": sys.argv[2:], "directory": os.getcwd(), "environment": dict(os.environ)}}
asked = json.dumps(asked).encode()
with socket.socket(socket.AF_UNIX) as ask:
    ask.connect({socket!r})
    socket.send_fds(ask, [len(asked).to_bytes(8, "big")], [1, 2])
    ask.sendall(asked)
    sys.exit(int(ask.makefile().read()))
"""


def start():
    """Start the process; the folder (str) to put first on the PATH. Both end with this process."""
    folder = tempfile.mkdtemp()
    (Path(folder) / "bin").mkdir()
    python = Path(folder) / "bin/python"
    python.write_text(PYTHON.format(python=sys.executable, socket=f"{folder}/socket"))
    python.chmod(0o755)
    dry_runs.launch(__file__, folder, dict(os.environ, FORKED_PYTHON=str(python)))
    return str(python.parent)


def prepare():
    """Import what the jobs need, and start no thread."""
    import gc

    import datasets
    import pyarrow.parquet
    import torch
    import transformers.models.llama.modeling_llama
    import transformers.trainer

    gc.collect()
    gc.freeze()
    return datasets, pyarrow, torch, transformers


if __name__ == "__main__":
    prepare()
    python = os.environ["FORKED_PYTHON"]
    own = sys.path[1:]  # without this folder
    dry_runs.serve(sys.argv[1])
    sys.executable = python  # of processes that the job starts
    sys.path[:] = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *own]
    del sys.modules["dry_runs"]
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

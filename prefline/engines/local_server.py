"""A vLLM server of this job's own on this machine, up for as long as the job is."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import httpx2
import tenacity

from prefline.errors import MachineError
from prefline.servers import only_with_key
from prefline.servers.client import bearer

# Seconds that a server may take until it answers, and the slowest disk from which it reads its model.
LONGEST_START = 300
SLOWEST_BYTES_PER_SECOND = 50e6
STOP_SECONDS = 20
# The filter before all paths of the server, as vLLM imports it.
FILTER = "prefline.servers.only_with_key.OnlyWithKey"


class LocalServer:
    """Starts the server when made; `url` is its address up to /v1 once `wait` has returned.

    Others on the machine can reach it, too: it answers only to `key`, a random one that goes to it by its
    environment, on every path. arguments: vLLM's engine arguments (dict); name: the model's on the server.
    """

    def __init__(self, arguments, name):
        port, self.key = free_port(), secrets.token_urlsafe(32)
        self.url = f"http://127.0.0.1:{port}/v1"
        self.health = f"http://127.0.0.1:{port}/health"
        self.failure, self.lock = None, threading.Lock()
        self.log = tempfile.NamedTemporaryFile(prefix="prefline-server-", suffix=".log")  # noqa: SIM115
        self.process = subprocess.Popen(
            [
                *program(name, "127.0.0.1", port),
                *["--disable-uvicorn-access-log", *command_line(arguments)],
            ],
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, only_with_key.VARIABLE: self.key, "PYTHONPATH": python_path()},
            start_new_session=True,
        )

    def wait(self, seconds=LONGEST_START):
        """Return when the server is healthy; MachineError, with the end of its log, if it never is."""
        tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda healthy: not healthy),
            wait=tenacity.wait_exponential(multiplier=0.1, max=2),
            stop=tenacity.stop_after_delay(seconds),
            retry_error_callback=lambda _: self._fail(f"did not answer within {seconds:.0f} s"),
        )(self._is_healthy)

    def check(self):
        """Raise MachineError, with the end of its log, if the server has ended."""
        if self.process.poll() is not None:
            self._fail(f"ended with status {self.process.returncode}")

    def close(self):
        """Stop the server and all its processes."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        # Its workers have its process group; one that hangs would keep the GPU.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def _is_healthy(self):
        self.check()
        try:
            # trust_env would send this to a proxy of the environment, which is for other machines.
            return (
                httpx2.get(self.health, headers=bearer(self.key), timeout=5, trust_env=False).status_code
                == 200
            )
        except httpx2.TransportError:
            return False

    def _fail(self, how):
        with self.lock:  # several threads may ask at once, and the log goes with the server
            if self.failure is None:
                with open(self.log.name, encoding="utf-8", errors="replace") as log:
                    tail = "".join(log.readlines()[-30:])
                self.close()
                self.failure = f"the vLLM server that this job started {how}; the end of its log:\n{tail}"
        raise MachineError(self.failure)


def serve(files, name, batch_size, dtype, seed, **vllm):
    """Return a LocalServer that is healthy and has the model of `files` (ModelFiles) under `name`.

    The rest is as in `vllm.engine_arguments`. Raises InputError without vLLM, MachineError if it dies.
    """
    from prefline.engines.vllm import engine_arguments, set_environment

    set_environment(apart=True)
    arguments = engine_arguments(files, batch_size, dtype, seed, **vllm)
    files.context = arguments["max_model_len"]
    server = LocalServer(arguments, name)
    try:
        server.wait(longest_start(files.path))
    except BaseException:
        server.close()
        raise
    return server


def longest_start(model):
    """Return the seconds (float) that the server of a model (directory) may take until it answers."""
    weights = sum(path.stat().st_size for path in Path(model).rglob("*") if path.is_file())
    return LONGEST_START + weights / SLOWEST_BYTES_PER_SECOND


def program(name, host, port):
    """Return the words (list of str) that start vLLM's server, which answers to nobody without the key."""
    return [
        *[sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", host, "--port", str(port)],
        *[f"--served-model-name={name}", f"--middleware={FILTER}"],
    ]


def command_line(arguments):
    """Return engine arguments (dict) as flags of vLLM's server: omit None, True: --flag, False: --no-flag."""
    words = []
    for key, value in arguments.items():
        flag = f"--{key.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is False:
            words.append(f"--no-{flag.removeprefix('--')}")
        elif value is not None:
            words += [flag, str(value)]
    return words


def python_path():
    """Return PYTHONPATH (str) with the project in front, from which the server imports FILTER."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))


def free_port():
    """Return a port (int) that no program listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

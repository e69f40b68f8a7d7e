"""A vLLM server of this job's own on this machine, up for as long as the job is."""

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile

import httpx2
import tenacity

# Seconds that a server may take until it answers: a large model is read from a slow disk.
LONGEST_START = 1800
STOP_SECONDS = 20


class LocalServer:
    """Starts the server when made; `url` is its address up to /v1 once `wait` has returned.

    Others on the machine can reach it, too: it answers only to `key`, a random one that goes to it by its
    environment. arguments: vLLM's engine arguments (dict); name: the model's on the server.
    """

    def __init__(self, arguments, name):
        port, self.key = free_port(), secrets.token_urlsafe(32)
        self.url = f"http://127.0.0.1:{port}/v1"
        self.health = f"http://127.0.0.1:{port}/health"
        self.log = tempfile.NamedTemporaryFile(prefix="prefline-server-", suffix=".log")  # noqa: SIM115
        self.process = subprocess.Popen(
            [
                *[sys.executable, "-m", "vllm.entrypoints.openai.api_server"],
                *["--host", "127.0.0.1", "--port", str(port), f"--served-model-name={name}"],
                *["--disable-uvicorn-access-log", *command_line(arguments)],
            ],
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, "VLLM_API_KEY": self.key},
            start_new_session=True,
            preexec_fn=end_with_parent if sys.platform.startswith("linux") else None,
        )

    def wait(self):
        """Return when the server is healthy; RuntimeError, with the end of its log, if it dies instead."""
        tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda healthy: not healthy),
            wait=tenacity.wait_exponential(multiplier=0.1, max=2),
            stop=tenacity.stop_after_delay(LONGEST_START),
            retry_error_callback=lambda _: self._fail("is not healthy yet"),
        )(self._is_healthy)

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
        if self.process.poll() is not None:
            self._fail(f"ended with status {self.process.returncode}")
        try:
            return httpx2.get(self.health, timeout=5).status_code == 200
        except httpx2.TransportError:
            return False

    def _fail(self, how):
        with open(self.log.name, encoding="utf-8", errors="replace") as log:
            tail = "".join(log.readlines()[-30:])
        self.close()
        raise RuntimeError(f"the vLLM server that this job started {how}; the end of its log:\n{tail}")


def serve(files, name, batch_size, dtype, seed, **vllm):
    """A LocalServer that is healthy and has the model of `files` (ModelFiles) under `name`.

    The rest is as in `vllm.engine_arguments`. Raises InputError without vLLM, RuntimeError if it dies.
    """
    from prefline.engines.vllm import engine_arguments, set_environment

    set_environment("completion")
    server = LocalServer(engine_arguments(files, batch_size, dtype, seed, **vllm), name)
    try:
        server.wait()
    except BaseException:
        server.close()
        raise
    return server


def command_line(arguments):
    """Engine arguments (dict) as flags of vLLM's server: None is left out, True --flag, False --no-flag."""
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


def free_port():
    """A port (int) that no program listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def end_with_parent():
    """Run in the server before it starts: the kernel ends it when the job dies, by SIGKILL too."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)

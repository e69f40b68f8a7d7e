"""The vLLM server that a job starts answers soon, without a proxy, or the job ends and shows its log."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
import stand_in
from small_model import make_model, make_tokenizer
from stand_in import endpoint

from prefline import engines
from prefline.engines import Completion, Request, Sampling, local_server, vllm
from prefline.engines.local_server import LocalServer, command_line
from prefline.errors import InputError, MachineError
from prefline.servers.client import Client
from prefline.servers.endpoint import Endpoint

SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=8)
REQUESTS = [Request([0, 30, 31], seed, f"prompt {seed}") for seed in range(12)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "policy", make_tokenizer(), weights=True)


def load(model, **options):
    values = {"seed_per": "completion", "seed": 1, "served_model": None, "vllm": {}, "journal": "nowhere"}
    return engines.load("server", model, 4, "float32", **values | options)


PROXIES = [name for one in ("http_proxy", "https_proxy", "all_proxy") for name in (one, one.upper())]


class Proxy:
    """A proxy that answers everything itself, and notes what it was asked."""

    def __init__(self):
        self.asked = asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append((self.path, dict(self.headers)))
                stand_in.reply(self, 200, {"data": [{"id": "policy"}], "choices": []})

            do_POST = do_CONNECT = do_GET

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture(params=["hostile", "dead", "socks5://127.0.0.1:9", "nonsense"])
def proxy(request, monkeypatch):
    """A proxy in the environment that knows no server of this machine; what it was asked."""
    hostile = Proxy()
    url = {"hostile": hostile.url, "dead": "http://127.0.0.1:9"}.get(request.param, request.param)
    for name in PROXIES:
        monkeypatch.setenv(name, url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield hostile.asked
    hostile.server.shutdown()
    hostile.server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_of_this_machine_is_reached_without_a_proxy(model, start, proxy, host):
    server = start(tokenizer=make_tokenizer(), name="policy", key="secret")
    asked = Endpoint(**endpoint("", urls=[server.url.replace("127.0.0.1", host)], timeout=5))
    engine = load(model, endpoint=asked, key="secret")
    made = engine.generate(REQUESTS, SAMPLING)
    assert made == [Completion(server.ids(request.seed), "stop") for request in REQUESTS]
    assert proxy == []


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.2/v1", True),
        ("http://[::1]:1/v1", True),
        ("https://gpu.localhost/v1", True),
        ("https://api.example.com/v1", False),
        ("http://localhost.example.com/v1", False),
        ("http://10.0.0.1:8000/v1", False),
    ],
)
def test_a_proxy_is_for_other_machines(url, local, monkeypatch):
    for name in PROXIES:
        monkeypatch.setenv(name, "http://192.0.2.1:9")
    client = Client([url, "https://example.com/v1"], 1, 1)
    assert (client.http._transport_for_url(httpx2.URL(url)) is client.http._transport) == local
    assert client.http._transport_for_url(httpx2.URL("https://example.com/v1")) is not client.http._transport


@pytest.mark.parametrize("url", ["socks5://192.0.2.1:9", "gopher://x", "::"])
def test_a_proxy_that_cannot_be_used_is_one_sentence(url, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", url)
    with pytest.raises(
        InputError, match=r"the proxy that the environment names .* cannot be used: .*; correct"
    ):
        Client(["https://example.com/v1"], 1, 1)


# A server in the place of vLLM's: it ends, hangs, or is healthy and ends at its first completion.
SERVERS = {
    "ends": "print('CUDA out of memory'); sys.exit(3)",
    "hangs": "print('loading'); listener = socket.create_server(('127.0.0.1', port)); time.sleep(600)",
    "is killed": "print('serving'); ThreadingHTTPServer(('127.0.0.1', port), Handler).serve_forever()",
}
SERVER = """
import json, os, socket, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port = int(sys.argv[sys.argv.index("--port") + 1])
sys.stdout.reconfigure(line_buffering=True)

class Handler(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        self.answer({"data": [{"id": "policy"}]})

    def do_POST(self):
        Handler.asked += 1
        if Handler.asked == 2:  # the first is a trial
            print("killed", flush=True)
            os._exit(9)
        self.answer({"choices": [{"finish_reason": "length", "token_ids": [5]}]})

    def log_message(self, *words):
        pass

    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

"""


@pytest.fixture
def serving(tmp_path, monkeypatch):
    """serving(kind of SERVERS): have jobs start it in the place of vLLM's."""

    def make(kind):
        package = tmp_path / "vllm"
        for folder in (package, package / "entrypoints", package / "entrypoints/openai"):
            folder.mkdir()
            (folder / "__init__.py").touch()
        (package / "entrypoints/openai/api_server.py").write_text(SERVER + SERVERS[kind])
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return make


@pytest.mark.parametrize(
    ("kind", "seconds", "reason"),
    [
        ("ends", 60, r"ended with status 3; the end of its log:\nCUDA out of memory\n$"),
        ("hangs", 2, r"did not answer within 2 s; the end of its log:\nloading\n$"),
    ],
)
def test_a_server_of_the_jobs_own_that_never_answers_shows_its_log(serving, proxy, kind, seconds, reason):
    serving(kind)
    server = LocalServer({}, "policy")
    begun = time.monotonic()
    with pytest.raises(MachineError, match=f"^the vLLM server that this job started {reason}"):
        server.wait(seconds)
    assert time.monotonic() - begun < 120
    assert server.process.returncode is not None and proxy == []


def test_a_server_of_the_jobs_own_that_dies_ends_the_job_at_once(serving, model, proxy, monkeypatch):
    serving("is killed")
    monkeypatch.setattr(vllm, "engine_arguments", lambda *args, **options: {"max_model_len": 128})
    engine = load(model, endpoint=None)
    begun = time.monotonic()
    with pytest.raises(MachineError, match=r"ended with status 9; the end of its log:\nserving\nkilled\n$"):
        engine.generate(REQUESTS, SAMPLING)
    assert time.monotonic() - begun < 120 and proxy == []


def test_a_large_model_may_take_longer_to_load(tmp_path):
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.truncate(140_000_000_000)
    assert local_server.longest_start(tmp_path) == 300 + 2800


@pytest.mark.slow
def test_a_local_server_that_dies_shows_its_log():
    pytest.importorskip("vllm")
    server = LocalServer({"no_such_argument": 1}, "policy")
    with pytest.raises(RuntimeError, match=r"ended with status 2(.|\n)*no-such-argument"):
        server.wait()


def test_engine_arguments_become_flags():
    arguments = {
        "max_num_seqs": 8,
        "quantization": None,
        "enforce_eager": True,
        "enable_chunked_prefill": False,
    }
    assert command_line(arguments) == [
        "--max-num-seqs",
        "8",
        "--enforce-eager",
        "--no-enable-chunked-prefill",
    ]

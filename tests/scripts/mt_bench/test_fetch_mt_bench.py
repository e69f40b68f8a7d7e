"""Files from elsewhere: the right bytes or one sentence, and nothing half written."""

import hashlib
import http.server
import threading

import pytest

from prefline.config import loading as configuration
from prefline.errors import InputError
from scripts.mt_bench import fetch_mt_bench

CONTENT = b'{"question_id": 81}\n'
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def address(monkeypatch):
    """address(statuses) -> the URL of a server that answers with them in turn, then with the file."""
    servers = []
    monkeypatch.setattr(fetch_mt_bench, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(fetch_mt_bench.fetch, "__defaults__", (0.01,))

    def make(statuses=()):
        left = list(statuses)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                status = left.pop(0) if left else 200
                self.send_response(status)
                self.end_headers()
                self.wfile.write(CONTENT if status == 200 else b"no")

            def log_message(self, *_):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/question.jsonl"

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_file_is_what_its_sha256_says_or_is_not_there(address, tmp_path):
    out = tmp_path / "data/questions.jsonl"
    url = address()
    with pytest.raises(InputError, match=f"the file has the sha256 {SHA}, not 0000"):
        fetch_mt_bench.main(["--source", f"{url}#sha256={'0' * 64}", "--out", str(out)])
    assert not out.exists()
    fetch_mt_bench.main(["--source", f"{url}#sha256={SHA}", "--out", str(out)])
    assert out.read_bytes() == CONTENT


def test_what_fails_is_tried_again_and_what_is_gone_is_not(address):
    assert fetch_mt_bench.fetch(address([500, 503])) == CONTENT
    with pytest.raises(InputError, match=r"cannot be fetched .*404.*where there is no network, get the file"):
        fetch_mt_bench.fetch(address([404]))
    with pytest.raises(InputError, match="cannot be fetched"):
        fetch_mt_bench.fetch("http://127.0.0.1:9/x")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"questions": "https://x.y/q.jsonl"}, "mt_bench.questions"),
        ({"questions": "https://x.y/q.jsonl#sha256=abc"}, "mt_bench.questions"),
        ({"judge": "gpt"}, "names the judge 'gpt', which mt_bench.judges lacks; known: reference, reward"),
        ({"modes": ["single"]}, "add pairwise-baseline or pairwise-all, for the win rates"),
        ({"modes": ["pairwise-all", "single"]}, "the judge reference only compares"),
        ({"modes": []}, "mt_bench.modes"),
        ({"judges": {"g": {"max_tokens": 9}}}, "'endpoint' is a required property"),
        ({"judges": {"g": {"endpoint": "ownn", "max_tokens": 9}}}, "lacks; did you mean 'own'"),
        (
            {"judges": {"g": {"endpoint": "unnamed", "max_tokens": 9}}},
            "set it to the servers' name of the model",
        ),
        ({"judges": {"reward": {"endpoint": "own", "max_tokens": 9}}}, "this name is taken"),
    ],
)
def test_a_config_that_no_judge_can_go_by_is_one_sentence(change, sentence):
    import yaml

    with open("config.yaml", encoding="utf-8") as file:
        config = yaml.safe_load(file)
    config["mt_bench"] |= change
    unnamed = {"kind": "openai", "urls": ["http://x/v1"]}
    config["endpoints"] = {"own": {"kind": "vllm", "model": "sft"}, "unnamed": unnamed}
    with pytest.raises(InputError, match=sentence) as error:
        configuration.load(config)
    assert "\n" not in str(error.value)

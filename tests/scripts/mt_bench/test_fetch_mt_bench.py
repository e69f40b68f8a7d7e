"""Files from elsewhere: the right bytes or one sentence, and nothing half written."""

import hashlib
import http.server
import json
import random
import re
import statistics
import threading
from collections import Counter
from types import SimpleNamespace

import pytest
from configs import DEFAULT, refused

from prefline.config import loading as configuration
from prefline.errors import InputError
from prefline.judging import fastchat
from scripts.mt_bench import fetch_mt_bench

CORRECTIONS = "data/mt_bench/corrections.jsonl"

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
        fetch_mt_bench.main(["--source", f"{url}#sha256={'0' * 64}", "--corrections", "--out", str(out)])
    assert not out.exists()
    fetch_mt_bench.main(["--source", f"{url}#sha256={SHA}", "--corrections", "--out", str(out)])
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


def test_a_correction_replaces_the_text_it_was_written_for_and_no_other():
    row = {"question_id": 104, "model": "gpt-4", "choices": [{"index": 0, "turns": ["One.", "Two."]}]}
    right = {
        "question_id": 104,
        "turn": 2,
        "replaces": hashlib.sha256(b"Two.").hexdigest(),
        "reason": "",
        "reference": "One.",
    }
    kept = fetch_mt_bench.corrected([json.loads(json.dumps(row))], [("line 1", right)])
    assert kept == [row | {"choices": [{"index": 0, "turns": ["One.", "One."]}]}]
    for wrong in ({"turn": 1}, {"turn": 0}, {"turn": 3}, {"turn": "2"}, {"question_id": 105}):
        with pytest.raises(InputError, match="line 1: corrects another text"):
            fetch_mt_bench.corrected([row], [("line 1", right | wrong)])
    with pytest.raises(InputError, match="`reference` is the right answer"):
        fetch_mt_bench.corrected([row], [("line 1", right | {"reference": 2})])


def test_ones_own_references_are_corrected_in_their_file():
    section = DEFAULT["mt_bench"] | {"corrections": CORRECTIONS}
    assert "correct that file, and set corrections to null" in refused(DEFAULT | {"mt_bench": section})


def programs():
    """{(question, turn): the names that its Python program defines} of our corrections."""
    found = {}
    for _, row in fastchat.read_corrections(CORRECTIONS):
        for program in re.findall(r"```python\n(.*?)```", row["reference"], re.DOTALL):
            names = {"m": 2, "n": 3}
            exec(program, names)
            found[row["question_id"], row["turn"]] = SimpleNamespace(**names)
    return found


def test_the_programs_of_our_corrections_are_right():
    made = programs()
    assert [made[128, 1].full_binary_trees(n) for n in range(-1, 12)] == [
        0,
        0,
        1,
        0,
        1,
        0,
        2,
        0,
        5,
        0,
        14,
        0,
        42,
    ]
    assert [made[128, 2].full_ternary_trees(n) for n in range(14)] == [
        0,
        1,
        0,
        0,
        1,
        0,
        0,
        3,
        0,
        0,
        12,
        0,
        0,
        55,
    ]
    assert made[124, 2].dp == [[0] * 4] * 3
    draw = random.Random(1)
    for _ in range(300):
        first, second = (sorted(draw.choices(range(9), k=draw.randrange(1, 7))) for _ in range(2))
        assert made[126, 1].find_median(first, second) == statistics.median(first + second)
        counts = Counter(first)
        assert [counts[one] for one in made[127, 2].top_two(first)] == sorted(counts.values())[::-1][:2]
    leaf = SimpleNamespace(left=None, right=None, children=[])
    root = SimpleNamespace(left=SimpleNamespace(left=leaf, right=None), right=None)
    other = SimpleNamespace(left=None, right=None)
    assert made[125, 1].highest_common_ancestor(root, leaf, root.left) is root
    assert made[125, 1].highest_common_ancestor(root, leaf, other) is None
    several = SimpleNamespace(children=[leaf, SimpleNamespace(children=[])])
    assert made[125, 2].highest_common_ancestor(several, *several.children) is several
    assert made[125, 2].highest_common_ancestor(several, leaf, other) is None

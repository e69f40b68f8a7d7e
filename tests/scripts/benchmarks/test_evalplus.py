"""EvalPlus judges what a policy wrote, and what it wrote can do nothing else."""

import json
import os
import socket
import subprocess
import sys
import threading

import pytest
import small_model

from prefline import files
from prefline.data import benchmark_results
from prefline.errors import InputError
from prefline.judging import evalplus_tests
from prefline.machine import sandbox
from scripts.benchmarks import answer_benchmark, execute_evalplus

# Each gives the right sum if it gets through, a wrong one otherwise; {} is where it should not get.
ESCAPES = {
    "socket": "import socket\n    socket.create_connection(('127.0.0.1', {port}), 2).close()",
    "variable": "import os\n    assert os.environ['PREFLINE_API_KEY'] == 'secret'",
    "read": "import io\n    assert io.open('{folder}/secret').read() == 'secret'",
    "write": "import os\n    os.close(os.open('{folder}/written', os.O_CREAT | os.O_WRONLY))",
    "processes": "import io\n    assert b'PREFLINE_API_KEY' in io.open('/proc/{pid}/environ', 'rb').read()",
    "signal": "import ctypes\n    assert ctypes.CDLL(None).kill({pid}, 0) == 0",
}
SOLUTIONS = {
    "right": "    return a + b",
    "wrong": "    return a - b",
    "wrong in the plus tests": "    return a + b if abs(a) < 100 else 0",
    "endless": "    while True:\n        pass",
    "deaf": "    import signal\n    signal.setitimer(signal.ITIMER_REAL, 0)\n    while True:\n        pass",
    "no code": "I would rather not, and not (((.",
}


def problem(name):
    prompt = f'def add(a: int, b: int) -> int:\n    """The sum: {name}."""\n'
    return {
        "task_id": f"Own/{name}",
        "prompt": prompt,
        "entry_point": "add",
        "contract": "",
        "canonical_solution": "    return a + b\n",
        "base_input": [[1, 2], [3, 4]],
        "plus_input": [[1000, 1], [-5, 2]],
        "atol": 0,
    }


@pytest.fixture
def listener():
    """A server on this machine, and the connections that it has had."""
    server, seen = socket.create_server(("127.0.0.1", 0)), []

    def accept():
        while True:
            try:
                seen.append(server.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield server.getsockname()[1], seen
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


@pytest.fixture
def shut_in(tmp_path):
    """Skips where the machine shuts no process in."""
    (tmp_path / "empty.py").write_text("")
    try:
        sandbox.run(tmp_path / "empty.py", {}, {}, megabytes=1, memory_mb=500, seconds=60)
    except InputError as error:
        pytest.skip(str(error))


def write(folder, bodies):
    """Problems, and as their solutions {name: what stands in the answer}."""
    files.write_jsonl(folder / "problems.jsonl", [problem(name) for name in bodies])
    answers = [{"task_id": f"Own/{name}", "solution": body} for name, body in bodies.items()]
    files.write_jsonl(folder / "answers.jsonl", answers)


def unguarded(tmp_path, bodies):
    """The verdicts (list of dict) of the library without the sandbox."""
    folder = tmp_path / "unguarded"
    folder.mkdir()
    write(folder, bodies)
    own = {"HOME": str(folder), "HUMANEVAL_OVERRIDE_PATH": "problems.jsonl", "PARALLEL": "2"}
    command = [sys.executable, evalplus_tests.__file__]
    return json.loads(subprocess.check_output(command, cwd=folder, env={**os.environ, **own}))


def execute(tmp_path, bodies):
    """(results, {name: verdict}) of solutions {name: what stands in the answer}."""
    write(tmp_path, bodies)
    values = {
        "policy": "sft",
        "benchmark": "code",
        "problems": tmp_path / "problems.jsonl",
        "answers": tmp_path / "answers.jsonl",
        "temperature": 0,
        "max-tokens": 100,
        "parallel": 2,
        "verdicts": tmp_path / "verdicts.jsonl",
        "out": tmp_path / "sft.json",
    }
    execute_evalplus.main([f"--{name}={value}" for name, value in values.items()])
    rows = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [row["task_id"] for row in rows] == [f"Own/{name}" for name in bodies]
    return files.read_json(tmp_path / "sft.json"), dict(zip(bodies, rows, strict=True))


def test_the_code_in_answers_is_judged_and_gets_nowhere(tmp_path, shut_in, listener, monkeypatch):
    port, connections = listener
    (tmp_path / "secret").write_text("secret")
    monkeypatch.setenv("PREFLINE_API_KEY", "secret")
    # What is in os.environ only is not in /proc: a process of its own is started with it.
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    places = {"port": port, "folder": tmp_path, "pid": child.pid}
    escapes = {
        name: f"def add(a, b):\n    {text.format(**places)}\n    return a + b"
        for name, text in ESCAPES.items()
    }
    judged = unguarded(tmp_path, escapes)
    assert {one["base_status"] for one in judged} == {"pass"}  # outside, each of them gets through
    assert (tmp_path / "written").exists()
    (tmp_path / "written").unlink()
    known = len(connections)
    assert known > 0

    own = {name: f"def add(a, b):\n{body}\n\nprint(add(1, 2))\n```\nSo." for name, body in SOLUTIONS.items()}
    result, verdicts = execute(tmp_path, own | escapes)
    child.communicate(b"\n", timeout=60)
    passed = {name: (one["base_status"], one["plus_status"]) for name, one in verdicts.items()}
    assert passed.pop("right") == ("pass", "pass")
    assert passed.pop("wrong in the plus tests") == ("pass", "fail")
    assert passed.pop("deaf") == ("timeout", "timeout")
    assert passed == dict.fromkeys(passed, ("fail", "fail"))
    assert passed.keys() > escapes.keys()
    assert verdicts["right"]["solution"] == "def add(a, b):\n    return a + b"
    assert len(connections) == known
    assert not (tmp_path / "written").exists()

    base, plus = result["metrics"]
    assert (base["metric"], plus["metric"]) == ("humaneval/pass@1", "humaneval+/pass@1")
    assert (base["n"], base["value"], plus["value"]) == (12, pytest.approx(2 / 12), pytest.approx(1 / 12))
    # Worked by hand: p (1 - p) n / (n - 1) is the variance of one answer.
    assert plus["stderr"] == pytest.approx((1 / 12 * 11 / 12 / 11) ** 0.5)
    assert (result["library"], result["version"]) == ("evalplus", "0.3.1")
    assert base["settings"] == {"temperature": 0.0, "max_tokens": 100}


def test_a_policy_is_asked_as_the_library_asks(tmp_path):
    """Greedy: what follows the library's words, which begin the answer, is what the journal of it keeps."""
    from transformers import AutoModelForCausalLM

    tokenizer = small_model.make_tokenizer()
    model = small_model.make_model(tmp_path / "model", tokenizer, max_position_embeddings=1024)
    files.write_jsonl(tmp_path / "problems.jsonl", [problem("one")])
    values = small_model.ENGINE | {
        "questions": tmp_path / "problems.jsonl",
        "form": "evalplus",
        "policy": "sft",
        "model": model,
        "temperature": 0,
        "max-tokens": 6,
        "seed": 1,
        "journal": tmp_path / "journal",
        "out": tmp_path / "answers.jsonl",
    }
    answer_benchmark.main([f"--{name}={value}" for name, value in values.items()])
    (row,) = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert row["task_id"] == "Own/one"
    asked = problem("one")["prompt"].strip()
    text = (
        "<|begin_of_text|><|im_start|>user\nPlease provide a self-contained Python script that solves the "
        f"following problem in a markdown code block:\n```\n{asked}\n```\n<|im_end|>\n<|im_start|>assistant\n"
        "Below is a Python script with a self-contained function that solves the problem and passes "
        "corresponding tests:\n```python\n"
    )
    import torch

    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    network = AutoModelForCausalLM.from_pretrained(model)
    said = []
    while len(said) < 6 and not {1, 4} & set(said):
        said.append(int(network(torch.cat([ids, torch.tensor([said], dtype=int)], 1)).logits[0, -1].argmax()))
    assert row["solution"] == tokenizer.decode(said, skip_special_tokens=True).strip()


def test_bad_input_is_one_sentence(tmp_path):
    with pytest.raises(
        InputError, match=r"gone\.jsonl: no such file; .* curl -L .*HumanEvalPlus\.jsonl\.gz \| gunzip"
    ):
        benchmark_results.read_questions(tmp_path / "gone.jsonl", "evalplus")
    whole, answer = problem("a"), {"task_id": "Own/a", "solution": ""}
    part = {key: value for key, value in whole.items() if key != "plus_input"}
    with pytest.raises(
        InputError, match="problem 1: has no 'plus_input'; a file in EvalPlus's form is needed"
    ):
        execute_evalplus.check([part], [answer], "answers.jsonl")
    with pytest.raises(InputError, match=r"answers\.jsonl: does not answer the problems one by one"):
        execute_evalplus.check([whole, problem("b")], [answer], "answers.jsonl")

"""Judging MT-Bench by a server that takes its time: 320 calls, then none, and how much memory that takes.

A stand-in for the judge answers every call after --seconds. One pair of policies with 80 questions of two
turns is judged in both orders, from the process's start to its end; then again, with the journal that the
first run left. Then ten times as many questions, without the wait, show whether memory grows with the calls.

    python -m measurements.judging
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

from prefline.config import endpoints, section

WORDS = "The answer of this policy goes on for a while, as answers do. " * 20


class Judge(BaseHTTPRequestHandler):
    """Says [[A]] after a while, and counts how often."""

    protocol_version = "HTTP/1.1"
    seconds, calls = 0.0, 0

    def do_GET(self):
        self.reply({"data": [{"id": "judge"}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Judge.calls += 1
        time.sleep(Judge.seconds)
        message = {"role": "assistant", "content": "The first is better. " * 50 + "[[A]]"}
        usage = {"prompt_tokens": 1000, "completion_tokens": 200}
        self.reply({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    def reply(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def judge(folder, number, url, concurrency):
    """(seconds, calls, peak memory in MB) of judging `number` questions."""
    questions = [
        {"question_id": n, "category": "writing", "turns": [f"Question {n}?", "And then?"]}
        for n in range(number)
    ]
    answers = {
        policy: [
            {"question_id": n, "choices": [{"turns": [f"{policy} {n}: {WORDS}", f"{policy}, then: {WORDS}"]}]}
            for n in range(number)
        ]
        for policy in ("dpo-1", "sft")
    }
    asked = {"name": "stand_in", "kind": "openai", "model": "judge", "urls": [url], "timeout": 60}
    asked |= {"input_price": 30, "output_price": 60}
    flags = {
        "questions": write(folder / "question.jsonl", questions),
        "references": write(folder / "reference.jsonl", []),
        "judge-prompts": "data/mt_bench/judge_prompts.jsonl",
        "judge": "stand_in", "model": "", "batch-size": concurrency, "tensor-parallel-size": 1,
        "gpu-memory-percent": 90, "max-num-batched-tokens": 0, "max-tokens": 512,
        "endpoint": json.dumps(endpoints.DEFAULTS | asked), "seed": 1, "journal": folder / "journal",
        "out": folder / f"{number}.jsonl",
    }  # fmt: skip
    paths = [write(folder / f"{policy}.jsonl", rows) for policy, rows in answers.items()]
    words = [f"--{name}={value}" for name, value in flags.items()]
    Judge.calls, began, peak = 0, time.perf_counter(), 0
    command = [
        sys.executable,
        "-m",
        "scripts.mt_bench.ask_judge",
        *words,
        "--answers",
        *paths,
        "--models",
        *answers,
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.05)
    if process.wait():
        sys.exit("ask_judge failed; its words are above")
    return time.perf_counter() - began, Judge.calls, peak / 1e6


def main():
    parser = section.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="that the judge thinks about a call")
    parser.add_argument("--concurrency", type=int, default=16)
    args = parser.parse_args()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    with tempfile.TemporaryDirectory() as folder:
        for number, seconds in ((80, args.seconds), (80, args.seconds), (800, 0.0)):
            Judge.seconds = seconds
            took, calls, peak = judge(Path(folder), number, url, args.concurrency)
            print(
                f"{number} questions, {seconds:g} s a call: {calls} calls (one a trial) in {took:.1f} s, at "
                f"most {peak:.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()

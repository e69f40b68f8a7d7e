"""Whatever a job has started ends with it, and keeps its GPU until then."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from project_copy import PRETENDED_GPUS

pytestmark = pytest.mark.skipif(not Path("/proc/self/limits").is_file(), reason="needs Linux")

# A job with processes of every kind, none of which ends on its own: each writes its number to a folder.
JOB = """
import multiprocessing, os, signal, subprocess, sys, threading, time
from multiprocessing import shared_memory
from pathlib import Path

NOTES = Path(sys.argv[1])

def stay(name):
    (NOTES / name).write_text(str(os.getpid()))
    time.sleep(600)

def deaf(name):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stay(name)

def daemon(name):
    if child := os.fork():
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork() == 0:
        deaf(name)
    os._exit(0)

def shared(name):
    block = shared_memory.SharedMemory(name=sys.argv[2], create=True, size=1000)
    stay(name)

if __name__ == "__main__":
    spawn, fork = multiprocessing.get_context("spawn"), multiprocessing.get_context("fork")
    for context, function in ((spawn, stay), (spawn, shared), (fork, stay), (fork, deaf)):
        name = f"{context.get_start_method()} {function.__name__}"
        context.Process(target=function, args=[name]).start()
    daemon("daemon")
    command = "echo $$ > \\"$0\\"; exec sleep 600"
    subprocess.Popen(["sh", "-c", command, NOTES / "session"], start_new_session=True, env={})
    threading.Thread(target=subprocess.Popen, args=[["sh", "-c", command, NOTES / "thread"]]).start()
    while sum(path.stat().st_size > 0 for path in NOTES.iterdir()) < 7:
        time.sleep(0.01)
    (NOTES / "job").write_text(str(os.getpid()))
    print("started", flush=True)
    if sys.argv[3] == "stays":
        time.sleep(600)
    os._exit(0)
"""


@pytest.fixture
def job(tmp_path):
    """job(how) -> (Popen that leases a GPU and becomes the JOB, its processes); how: "stays" or "ends"."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "job.py").write_text(JOB)
    block = f"GPU-test-{os.getpid()}-{tmp_path.name[-12:]}"
    started = []

    def start(how, *before):
        lease = [*before, sys.executable, "-m", "prefline.machine.lease_gpus", "1"]
        words = [sys.executable, str(tmp_path / "job.py"), str(tmp_path / "notes"), block, how]
        process = subprocess.Popen(
            [*lease, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PREFLINE_GPUS": block, "PYTHONPATH": PRETENDED_GPUS},
        )
        started.append(process)
        assert process.stdout.readline() == f"on GPU {block}\n"
        assert process.stdout.readline() == "started\n"
        numbers = [int(path.read_text()) for path in (tmp_path / "notes").iterdir()]
        if how == "stays":
            assert len(numbers) == 8
            numbers += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        return process, set(numbers) - {process.pid}

    yield start
    for process in started:
        process.kill()
        process.communicate()
    assert not Path("/dev/shm", block).exists(), "shared memory is left"
    Path("/tmp", f"prefline-gpu-{block}.lock").unlink()


def alive(numbers):
    """Those of the processes (numbers) that run."""
    found = []
    for number in numbers:
        try:
            if psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
                found.append(number)
        except psutil.NoSuchProcess:
            continue
    return found


def gone(numbers):
    """Whether all processes end within 5 seconds, or 30 on a busy machine."""
    deadline = time.monotonic() + 30
    while alive(numbers) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(numbers)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
def test_a_killed_job_leaves_no_process(job, number):
    bystander = subprocess.Popen(["sleep", "600"])
    process, others = job("stays")
    assert len(alive(others)) == len(others) >= 8
    process.send_signal(number)
    assert gone(others)
    assert "ending the processes that outlived this job: " in process.communicate(timeout=60)[0]
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_job_that_ends_leaves_no_process(job):
    process, others = job("ends")
    assert process.wait(120) == 0
    assert gone(others)


def test_nor_does_a_job_whose_shell_and_snakemake_are_killed(job):
    """The job has replaced the shell, as in the rules; its parent is this stand-in for Snakemake."""
    parent = "import subprocess, sys; subprocess.run(['bash', '-c', 'exec \"$@\"', 'bash', *sys.argv[1:]])"
    process, others = job("stays", sys.executable, "-c", parent)
    process.kill()
    assert gone(others)


def test_the_lease_lasts_until_the_last_process_is_gone(job):
    process, others = job("stays")
    pool = process.args[-2]
    process.kill()
    code = "import sys; from prefline.machine import gpus; gpus.lease(1, [sys.argv[1]])"
    subprocess.run([sys.executable, "-c", code, pool], check=True, timeout=120)
    assert alive(others) == []


def test_a_job_without_children_ends_as_before():
    lease = [sys.executable, "-m", "prefline.machine.lease_gpus", "0", "sh", "-c"]
    for command, status in (("exit 7", 7), ("kill -9 $$", -9)):
        begun = time.monotonic()
        process = subprocess.run([*lease, command], capture_output=True, text=True)
        assert (process.returncode, process.stdout, process.stderr) == (status, "", "")
        assert time.monotonic() - begun < 60


def test_every_rule_that_asks_for_gpus_runs_its_job_by_the_command_that_guards_it():
    rules = [
        rule
        for path in Path("rules").glob("*.smk")
        for rule in re.split(r"^ *rule\b", path.read_text(encoding="utf-8"), flags=re.M)[1:]
        if re.search(r"^ +(\*\*(ENGINE|TRAINING|asking)\b|gpu=|\*\*.*ENGINE)", rule, re.M)
        and "shell:" in rule
    ]
    assert len(rules) > 10
    unguarded = [rule.split(":")[0].strip() for rule in rules if "prefline.machine.lease_gpus" not in rule]
    assert unguarded == []

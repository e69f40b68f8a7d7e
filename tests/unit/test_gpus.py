"""Jobs that run side by side on one machine never share a GPU, however they end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from scripts.common import gpus

LEASE = [
    sys.executable,
    "-c",
    "import os, sys, time\n"
    "from scripts.common import gpus\n"
    "print(','.join(gpus.lease(int(sys.argv[1]), sys.argv[2].split(','), sys.argv[3])), flush=True)\n"
    "os.execvp('sh', ['sh', '-c', sys.argv[4]])",
]


def start(count, pool, locks, command="exec sleep 60"):
    """A process that leases `count` GPUs, says which, and then becomes `command`."""
    return subprocess.Popen(
        [*LEASE, str(count), pool, str(locks), command], stdout=subprocess.PIPE, text=True
    )


def end(process):
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"CUDA_VISIBLE_DEVICES": "2,GPU-5f2a, MIG-1"}, ["2", "GPU-5f2a", "MIG-1"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,0"}, ["1"]),
        ({}, ["0", "1"]),
    ],
)
def test_the_environment_says_which_gpus_there_are_else_the_machine(environment, found, tmp_path):
    for name in ("nvidia0", "nvidia5", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus.installed(environment, tmp_path) == found


def test_jobs_of_a_sharing_snakemake_see_no_gpu_unless_they_lease_it():
    environment = {"CUDA_VISIBLE_DEVICES": "0,1"}
    gpus.share(environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": "", "PREFLINE_GPUS": "0,1"}


def test_a_lease_lasts_across_exec_and_ends_with_kill_9(tmp_path):
    one, two = start(1, "0,1", tmp_path), start(1, "0,1", tmp_path)
    names = {one.stdout.readline().strip(), two.stdout.readline().strip()}
    assert names == {"0", "1"}
    waiting = start(1, "0,1", tmp_path)
    time.sleep(1)
    os.set_blocking(waiting.stdout.fileno(), False)
    assert waiting.stdout.readline() == ""
    os.set_blocking(waiting.stdout.fileno(), True)
    one.send_signal(signal.SIGKILL)
    assert waiting.stdout.readline().strip() in names
    for process in (one, two, waiting):
        end(process)


def test_many_jobs_of_one_and_two_gpus_all_run_and_never_share(tmp_path):
    """Each writes when it held which: no two may overlap."""
    notes = tmp_path / "notes"
    notes.mkdir()
    script = (
        "import sys, time, pathlib\n"
        "from scripts.common import gpus\n"
        "names = gpus.lease(int(sys.argv[1]), ['a', 'b', 'c'], sys.argv[2])\n"
        "begun = time.monotonic(); time.sleep(0.1)\n"
        "pathlib.Path(sys.argv[3]).write_text(' '.join([str(begun), str(time.monotonic()), *names]))\n"
    )
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(1 + number % 2), str(tmp_path), str(notes / str(number))]
        )
        for number in range(8)
    ]
    assert [job.wait(60) for job in jobs] == [0] * 8
    held = [path.read_text().split() for path in notes.iterdir()]
    assert sorted(len(names) for _, _, *names in held) == [1] * 4 + [2] * 4
    for begun, ended, *names in held:
        for other_begun, _, *other in held:
            if float(begun) < float(other_begun) < float(ended):
                assert not set(names) & set(other)


def test_who_asks_for_more_than_there_are_gets_all(tmp_path):
    assert gpus.lease(4, [], tmp_path) == []
    job = start(4, "0,1", tmp_path)
    assert job.stdout.readline().strip() == "0,1"
    end(job)


def test_under_a_scheduler_its_devices_stay(monkeypatch):
    monkeypatch.delenv("PREFLINE_GPUS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    said = subprocess.check_output(
        [sys.executable, "-m", "scripts.lease_gpus", "1", "printenv", "CUDA_VISIBLE_DEVICES"], text=True
    )
    assert said == "7\n"

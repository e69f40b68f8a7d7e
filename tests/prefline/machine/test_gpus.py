"""Jobs that run side by side on one machine never share a GPU, however they end."""

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

from prefline.machine import gpus

LEASE = [
    sys.executable,
    "-c",
    "import os, sys, time\n"
    "from prefline.machine import gpus\n"
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
        *(({"CUDA_VISIBLE_DEVICES": none}, []) for none in ("none", "void", "-1", "NoDevFiles", "None,0")),
        ({}, ["0", "1"]),
    ],
)
def test_the_environment_says_which_gpus_there_are_else_the_machine(
    environment, found, tmp_path, monkeypatch
):
    for name in ("nvidia0", "nvidia5", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    assert gpus.installed(environment) == found


SMI = "#!/bin/sh\necho 'GPU 0: RTX (UUID: GPU-1)'; echo 'GPU 1: RTX (UUID: GPU-2)'; echo '  MIG 1g'"


@pytest.mark.parametrize(
    ("files", "tool", "found"),
    [
        (["nvidia3"], None, ["0"]),  # as CUDA counts
        (["nvidia1", "nvidia10", "nvidiactl", "nvidia-caps"], None, ["0", "1"]),
        (["dxg"], SMI, ["0", "1"]),
        (["dxg"], "#!/bin/sh\nexit 9", []),
        (["dxg"], None, []),
        (["nvhost-gpu", "nvmap"], None, ["0"]),
        (["nvgpu"], None, ["0"]),
        (["dri", "kfd"], SMI, []),
    ],
)
def test_the_gpus_of_a_machine_are_those_that_its_driver_has(files, tool, found, tmp_path, monkeypatch):
    for name in files:
        (tmp_path / name).touch()
    (tmp_path / "bin").mkdir()
    if tool:
        (tmp_path / "bin/nvidia-smi").write_text(tool)
        (tmp_path / "bin/nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    monkeypatch.setattr(gpus, "WSL_TOOLS", tmp_path / "nowhere")
    assert gpus.installed({}) == found


def test_jobs_of_a_sharing_snakemake_see_no_gpu_unless_they_lease_it():
    environment = {"CUDA_VISIBLE_DEVICES": "0,1"}
    gpus.share(environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": "", "PREFLINE_GPUS": "0,1"}


def test_a_lease_lasts_across_exec_and_ends_with_kill_9(tmp_path):
    one, two = start(1, "0,1", tmp_path), start(1, "0,1", tmp_path)
    names = {one.stdout.readline().strip(), two.stdout.readline().strip()}
    assert names == {"0", "1"}
    waiting = start(1, "0,1", tmp_path)
    assert waiting.stdout.readline().startswith("waiting for a GPU")
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
        "from prefline.machine import gpus\n"
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
    assert [job.wait(300) for job in jobs] == [0] * 8
    held = [path.read_text().split() for path in notes.iterdir()]
    assert sorted(len(names) for _, _, *names in held) == [1] * 4 + [2] * 4
    for begun, ended, *names in held:
        for other_begun, _, *other in held:
            if float(begun) < float(other_begun) < float(ended):
                assert not set(names) & set(other)


def test_a_wait_says_once_for_whom(tmp_path):
    holders = []
    for name in ("0", "1"):
        holders.append(start(1, "0,1", tmp_path, f"exec sleep 6{name}"))
        assert holders[-1].stdout.readline() == f"{name}\n"
    since, waiting = r"since \d{4}-\d\d-\d\d \d\d:\d\d", []
    users = [f"process {process.pid} of {psutil.Process().username()} {since}" for process in holders]
    expected = rf"GPU 0 is in use by {users[0]} \(sleep 60\); GPU 1 is in use by {users[1]} \(sleep 61\)"
    for count in (2, 1):
        waiting.append(start(count, "0,1", tmp_path))
        assert re.fullmatch(f"waiting for a GPU: {expected}\n", waiting[-1].stdout.readline())
    time.sleep(2)
    for process in holders:
        end(process)
    assert waiting[0].stdout.readline() == "0,1\n"
    end(waiting[0])
    assert waiting[1].stdout.readline() in ("0\n", "1\n")
    end(waiting[1])


def test_a_holder_that_cannot_be_seen_is_said_too(tmp_path, monkeypatch):
    lock = tmp_path / "prefline-gpu-0.lock"
    holder = start(1, "0", tmp_path)
    holder.stdout.readline()
    monkeypatch.setattr(psutil, "Process", raise_no_such_process)
    assert gpus._user(lock) == f"process {holder.pid}, which is ending"
    end(holder)
    assert gpus._user(lock) is None


def raise_no_such_process(number):
    raise psutil.NoSuchProcess(number)


def of_other_users(path):
    path.touch()
    path.chmod(0)
    os.chown(path, 12345, 12345)


KINDS_OF_LOCKS = {
    "link": (lambda path: path.symlink_to("/etc/passwd"), "a link to /etc/passwd; owner root"),
    "dead link": (lambda path: path.symlink_to("nowhere"), "a link to nowhere; owner root"),
    "folder": (lambda path: path.mkdir(), "not a file; owner root"),
    "pipe": (os.mkfifo, "not a file; owner root"),
    "somebody's": (of_other_users, "Permission denied; owner 12345"),
}


@pytest.mark.skipif(os.getuid() != 0, reason="makes files of other users")
@pytest.mark.parametrize("name", ["prefline-gpu-0.lock", "prefline-gpus.lock"])
@pytest.mark.parametrize("kind", KINDS_OF_LOCKS)
def test_a_lock_file_that_cannot_be_used_is_one_sentence(kind, name, tmp_path):
    make, reason = KINDS_OF_LOCKS[kind]
    tmp_path.chmod(0o777)
    make(tmp_path / name)
    code = (  # what another user gets
        "import os, sys\n"
        "from prefline import errors; from prefline.machine import gpus\n"
        "os.setgid(54321); os.setuid(54321)\n"
        "errors.run(lambda: gpus.lease(1, ['0'], sys.argv[1]))"
    )
    folder = Path("/tmp", f"prefline-locks-{os.getpid()}")
    tmp_path.rename(folder)  # whose parents everybody may enter
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code, folder], capture_output=True, text=True, timeout=120
        )
    finally:
        folder.rename(tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"error: {folder / name}: the lock file of a GPU is unusable ({reason}); "
        "have its owner or root remove it\n"
    )


def test_every_user_can_lock_a_file_that_one_made_with_a_strict_umask(tmp_path):
    before = os.umask(0o077)
    try:
        gpus._open(tmp_path / "x.lock")
    finally:
        os.umask(before)
    assert (tmp_path / "x.lock").stat().st_mode & 0o777 == 0o644


def test_who_asks_for_more_than_there_are_gets_all(tmp_path):
    assert gpus.lease(4, [], tmp_path) == []
    job = start(4, "0,1", tmp_path)
    assert job.stdout.readline().strip() == "0,1"
    end(job)


def test_under_a_scheduler_its_devices_stay(monkeypatch):
    monkeypatch.delenv("PREFLINE_GPUS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setenv("PYTHONPATH", PRETENDED_GPUS)
    said = subprocess.check_output(
        [sys.executable, "-m", "prefline.machine.lease_gpus", "1", "printenv", "CUDA_VISIBLE_DEVICES"],
        text=True,
    )
    assert said == "7\n"

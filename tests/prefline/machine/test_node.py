"""What the config says of the machine counts, the driver tells the rest, and rules take what they can use."""

import pytest

from prefline.errors import InputError
from prefline.machine import node

RULE = "train_policy"
NOTHING = {"gpus": None, "gpu_memory": None, "memory": None}
KNOWN = {
    "train_policy": {"gpu", "mem_mb", "runtime", "save_steps"},
    "gather_benchmarks": {"mem_mb", "runtime"},
}


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """driver(rows) -> a stand-in for nvidia-smi that tells them, the only program on the PATH beside sh."""

    def install(rows):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\necho '{rows}'\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    return install


def test_the_driver_tells_of_the_smallest_gpu_that_jobs_may_use(driver):
    driver("0, GPU-aa, 81559\n1, GPU-bb, 24564\n2, GPU-cc, 8192")
    for visible, number, memory in (("0,1", 2, 24.0), ("0", 1, 79.6), ("GPU-bb", 1, 24.0), ("", None, None)):
        here = node.described(NOTHING, {"CUDA_VISIBLE_DEVICES": visible})
        assert (here.gpus, here.gpu_memory, here.memory) == (number, memory, None)


@pytest.mark.parametrize("told", ["", "No devices were found", "0, GPU-aa, [N/A]"])
def test_a_driver_that_does_not_tell_leaves_the_memory_unknown(driver, told):
    driver(told)
    assert node.described(NOTHING, {"CUDA_VISIBLE_DEVICES": "0"}) == node.Node(1, None, None)


def test_the_config_counts_more_than_the_driver_and_jobs_get_no_more_than_they_may(driver):
    driver("0, GPU-aa, 81559")
    section = {"gpus": 8, "gpu_memory": 24, "memory": 500}
    found = node.described(section, {"CUDA_VISIBLE_DEVICES": "0"})
    assert found == node.Node(8, 24, 500e9)
    assert node.described(section, {"CUDA_VISIBLE_DEVICES": "0"}, allowed=2).gpus == 2
    assert node.described(section, {"CUDA_VISIBLE_DEVICES": "0"}, allowed=0).gpus == 0


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"train_polcy": {}}, f"machine.rules has 'train_polcy', which is no rule; did you mean '{RULE}'?"),
        ({"xyzzy": {}}, "machine.rules has 'xyzzy', which is no rule; docs/memory.md lists them"),
        (
            {"train_policy": {"batch_tokens": 1}},
            "machine.rules.train_policy.batch_tokens: the rule does not use it; its own resources: "
            "gpu, save_steps",
        ),
        (
            {"gather_benchmarks": {"gpu": 1}},
            "machine.rules.gather_benchmarks.gpu: the rule does not use it; its own resources: none",
        ),
    ],
)  # fmt: skip
def test_a_rule_or_resource_that_is_not_there_is_named(rules, sentence):
    with pytest.raises(InputError) as error:
        node.check(rules, KNOWN)
    assert str(error.value) == f"config: {sentence}"


def test_a_scheduler_s_resources_are_for_all_rules_and_null_is_none():
    node.check({"gather_benchmarks": {"slurm_partition": "cpu", "mem_mb": 5}, "train_policy": None}, KNOWN)
    assert node.settings(None) == {}
    assert node.settings({"gpu": None, "gradient_checkpointing": True, "runtime": 5}) == {
        "gradient_checkpointing": "true",
        "runtime": 5,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tensor_parallel_size", "two"),
        ("gradient_checkpointing", "yes"),
        ("per_device_train_batch_size", 0),
        ("gres", "gpu:two:three"),
        ("gres", "a100:2"),
        ("gpu", -1),
        ("gpu_memory_percent", 900),
    ],
)
def test_a_set_value_of_another_form_is_refused(name, value):
    with pytest.raises(InputError, match=f"^set-resources: train_policy:{name}={value}: .*[.]\\)$"):
        node.check_set({"train_policy": {name: value}})


def test_other_set_values_are_left_to_snakemake():
    node.check_set({"train_policy": {"gradient_checkpointing": "true", "gpu": 2, "gres": "gpu:a100:2"}})
    node.check_set({"train_policy": {"batch_size": "8 if attempt == 1 else 4", "save_steps": "attempt"}})
    node.check_set({"train_policy": {"mem_mb": "8GB", "queue": "gpu", "wandb_project": "mine"}})

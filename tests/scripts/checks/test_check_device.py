"""The check of the GPU tells what jobs get, and refuses vLLM that is not installed."""

import libcuda
import pytest

from prefline import files
from prefline.errors import InputError
from prefline.machine import device
from scripts.checks import check_device


def found(tmp_path, *words, gpu_memory="null"):
    check_device.main([*words, "--gpu-memory", gpu_memory, "--out", str(tmp_path / "gpu.json")])
    return files.read_json(tmp_path / "gpu.json")["found"]


def test_the_card_the_driver_and_the_builds_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "LIBRARIES", [libcuda.compiled(tmp_path)])
    monkeypatch.setattr(device, "_driver", lambda: "580.65.06")
    monkeypatch.setattr(device, "installed_vllm", lambda: "0.32.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    said = found(tmp_path, "--needs-vllm")
    assert said.startswith("NVIDIA H200 (150 GB), driver 580.65.06 for CUDA 13.0, torch 2.")
    assert said.endswith(", vLLM 0.32.0")


@pytest.mark.parametrize(("gpu_memory", "fits"), [("141", True), ("150", True), ("80", True), ("192", False)])
def test_a_card_with_less_memory_than_the_config_says_is_refused(tmp_path, monkeypatch, gpu_memory, fits):
    monkeypatch.setattr(device, "LIBRARIES", [libcuda.compiled(tmp_path)])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    if fits:
        assert found(tmp_path, gpu_memory=gpu_memory).startswith("NVIDIA H200 ")
        return
    with pytest.raises(InputError) as error:
        found(tmp_path, gpu_memory=gpu_memory)
    assert str(error.value) == (
        "machine.gpu_memory is 192, and jobs get a NVIDIA H200 with 140 GB; set what the card has, or ask "
        "for a larger one"
    )


def test_a_machine_that_gives_jobs_no_gpu_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert found(tmp_path) == "jobs with a GPU get none here, so they compute on the CPU"


def test_vllm_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "installed_vllm", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(InputError, match="by vLLM, which is not installed; install builds for CUDA"):
        found(tmp_path, "--needs-vllm")

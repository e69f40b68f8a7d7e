"""What cannot be shared out among processes is said before a training begins."""

import importlib.util
from pathlib import Path

import pytest

from prefline.errors import InputError
from prefline.training import sharding

FSDP2, ZERO3 = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"


@pytest.mark.parametrize(
    ("switch", "quantization", "optim", "message"),
    [
        (FSDP2, "nf4", "adamw_torch_fused", "fsdp2, but four-bit weights cannot be sharded; take ddp"),
        (FSDP2, None, "adamw_8bit", "bitsandbytes' adamw_8bit does not go with; take optim adamw_torch"),
        (ZERO3, None, "adamw_torch_fused", "needs DeepSpeed: pip install deepspeed, or take fsdp2"),
    ],
)
def test_what_is_asked_for_but_cannot_be(monkeypatch, switch, quantization, optim, message):
    if switch == ZERO3 and importlib.util.find_spec("deepspeed"):
        pytest.skip("this machine has DeepSpeed")
    monkeypatch.setenv(switch, "true")
    with pytest.raises(InputError, match=message):
        sharding.check(quantization, optim)


def test_a_process_that_holds_everything_takes_everything():
    assert sharding.name() is None
    sharding.check("nf4", "paged_adamw_8bit")


@pytest.mark.parametrize(
    ("switch", "parallel", "devices", "sentence"),
    [
        (None, "fsdp2", 2, r"by fsdp2 on 2 devices, and now training is by ddp on 4 devices, which cannot"),
        (FSDP2, None, 4, r"by ddp on 4 devices, and now training is by fsdp2 on 4 devices, which"),
        (FSDP2, None, 1, r"on one device, and now training is by fsdp2 on 4 devices, which"),
        (ZERO3, "zero3", 2, r"by zero3 on 2 devices, and now training is by zero3 on 4 devices, which"),
        (None, None, 1, None),
        (None, None, 2, None),
        (FSDP2, "fsdp2", 2, None),
        (ZERO3, "zero3", 4, None),
    ],
)
def test_a_checkpoint_that_was_shared_out_in_another_way(monkeypatch, switch, parallel, devices, sentence):
    monkeypatch.setenv("WORLD_SIZE", "4")
    if switch is not None:
        monkeypatch.setenv(switch, "true")
    found = {"parallel": parallel, "devices": devices}
    if sentence is None:
        sharding.check_written(Path("k/checkpoint-5"), found)
    else:
        with pytest.raises(InputError, match=rf"^k/checkpoint-5 was written {sentence}.* or delete k to"):
            sharding.check_written(Path("k/checkpoint-5"), found)

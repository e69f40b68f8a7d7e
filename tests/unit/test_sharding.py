"""What cannot be shared out among processes is said before a training begins."""

import importlib.util

import pytest

from scripts.common import sharding
from scripts.common.errors import InputError

FSDP2, ZERO3 = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"


@pytest.mark.parametrize(
    ("switch", "quantization", "optim", "message"),
    [
        (FSDP2, "nf4", "adamw_torch_fused", "fsdp2, but four-bit weights are not shared out; take ddp"),
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

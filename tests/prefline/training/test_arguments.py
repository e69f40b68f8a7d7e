"""How devices share the rows of an optimizer step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefline.errors import InputError
from prefline.training import arguments


@given(st.integers(1, 512), st.integers(1, 64), st.integers(1, 16))
def test_accumulation_keeps_the_global_batch_or_says_why_not(global_batch, per_device, devices):
    try:
        rows, steps = arguments.accumulation(global_batch, per_device, devices)
    except InputError:
        assert global_batch % devices
    else:
        assert rows * steps * devices == global_batch
        assert rows <= per_device


def test_accumulation_takes_the_most_rows_that_fit_and_proposes_batches_that_do():
    assert arguments.accumulation(64, 7, 4) == (4, 4)
    assert arguments.accumulation(64, 100, 4) == (16, 1)
    with pytest.raises(InputError, match=r"by 3 devices; take a .* of 63 or 66, or 2 or 4 devices$"):
        arguments.accumulation(64, 8, 3)
    with pytest.raises(InputError, match=r"by 4 devices; take a global_batch_size of 4, or 2 devices$"):
        arguments.accumulation(2, 8, 4)

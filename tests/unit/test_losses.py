"""The losses against numbers worked by hand and against what they must be where nothing was learned yet."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scripts.common import losses

LOGRATIOS = st.floats(-50, 50, width=32)


def vector(*values):
    return torch.tensor(values, dtype=torch.float32)


def test_sigmoid_by_hand():
    # beta 0.1, Δ = 2 − (−3) = 5: −ln σ(0.5) = ln(1 + e^−0.5) = 0.474077
    loss = losses.sigmoid(vector(2.0), vector(-3.0), beta=0.1, label_smoothing=0.0)
    assert loss.tolist() == pytest.approx([0.4740770], abs=1e-6)


def test_sigmoid_with_label_smoothing_by_hand():
    # 0.9 · 0.4740770 + 0.1 · ln(1 + e^0.5) = 0.4266693 + 0.0974077
    loss = losses.sigmoid(vector(2.0), vector(-3.0), beta=0.1, label_smoothing=0.1)
    assert loss.tolist() == pytest.approx([0.5240770], abs=1e-6)


def test_rebel_by_hand():
    # Δ = 5, Δr = 0.75 − 0.25, eta 4: (5 − 2)² = 9; the gradient of Δ is 2 · 3, with opposite signs
    chosen, rejected = vector(2.0).requires_grad_(), vector(-3.0).requires_grad_()
    loss = losses.rebel(chosen, rejected, vector(0.75), vector(0.25), eta=4.0)
    loss.sum().backward()
    assert loss.tolist() == [9.0]
    assert (chosen.grad.item(), rejected.grad.item()) == (6.0, -6.0)


def test_each_pair_has_its_own_loss():
    chosen, rejected = vector(0.0, 1.0, -4.0), vector(0.0, -1.0, 2.0)
    together = losses.sigmoid(chosen, rejected, 0.5, 0.1)
    alone = [losses.sigmoid(c[None], r[None], 0.5, 0.1) for c, r in zip(chosen, rejected, strict=True)]
    assert together.tolist() == pytest.approx(torch.cat(alone).tolist(), abs=1e-7)


@given(ratio=LOGRATIOS, beta=st.floats(0.01, 5), label_smoothing=st.floats(0, 0.49))
def test_sigmoid_is_ln_2_where_nothing_separates_the_pair(ratio, beta, label_smoothing):
    loss = losses.sigmoid(vector(ratio), vector(ratio), beta, label_smoothing)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)


@given(chosen=st.floats(-10, 10, width=32), rejected=st.floats(-10, 10, width=32), eta=st.floats(0.01, 10))
def test_rebel_at_the_reference_is_the_squared_reward_difference(chosen, rejected, eta):
    loss = losses.rebel(vector(0.0), vector(0.0), vector(chosen), vector(rejected), eta)
    assert loss.item() == pytest.approx((eta * (chosen - rejected)) ** 2, rel=1e-4, abs=1e-6)


@given(chosen=LOGRATIOS, rejected=LOGRATIOS)
def test_turning_a_pair_round_mirrors_the_label_smoothing(chosen, rejected):
    one = losses.sigmoid(vector(chosen), vector(rejected), 0.3, 0.2)
    other = losses.sigmoid(vector(rejected), vector(chosen), 0.3, 0.8)
    assert one.item() == pytest.approx(other.item(), rel=1e-5, abs=1e-6)


def test_far_margins_stay_finite():
    loss = losses.sigmoid(vector(1e4, -1e4), vector(-1e4, 1e4), 1.0, 0.1)
    assert torch.isfinite(loss).all()

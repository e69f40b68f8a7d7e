"""The losses against numbers worked by hand, what they must be at the reference, and in limits.

test_against_trl.py holds them against TRL's code.
"""

import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefline.errors import InputError
from prefline.training import losses
from prefline.training.loss_functions import Batch

NATS = st.floats(-50, 50, width=32)
BETA = st.floats(0.01, 5)
SMOOTHING = st.floats(0, 0.49)
# One value for each hyperparameter, at which every loss is finite.
VALUES = {
    "beta": 0.5,
    "label_smoothing": 0.1,
    "discopop_tau": 0.05,
    "simpo_gamma": 0.5,
    "eta": 2.0,
    "reward_scaling": "none",
}
PAIRWISE = sorted(losses.LOSSES.keys() - set(losses.WHOLE_BATCH))


def batch(chosen=(0.0,), rejected=(0.0,), **columns):
    """A Batch with these log-ratios: the reference gives every completion -20 nats; of the rest, 1."""
    chosen, rejected = torch.tensor(chosen), torch.tensor(rejected)
    made = {
        name: torch.tensor(columns.get(name, [1.0] * len(chosen)))
        for name in (
            *("chosen_tokens", "rejected_tokens", "mean_chosen_tokens", "chosen_reward", "rejected_reward"),
            *("chosen_win_probability", "rejected_win_probability"),
        )
    }
    reference = torch.full_like(chosen, -20.0)
    return Batch(reference + chosen, reference + rejected, reference, reference, **made)


def loss_of(name, *args, values=None, **columns):
    """The loss of each pair, a list of float."""
    return losses.total(batch(*args, **columns), name, VALUES | (values or {})).tolist()


def about(value):
    return pytest.approx(value, rel=1e-4, abs=1e-4)


def test_sigmoid_by_hand():
    # beta 0.1, Δ = 2 − (−3) = 5: −ln σ(0.5) = ln(1 + e^−0.5) = 0.474077
    values = {"beta": 0.1, "label_smoothing": 0.0}
    assert loss_of("sigmoid", [2.0], [-3.0], values=values) == pytest.approx([0.4740770], abs=1e-6)
    # 0.9 · 0.4740770 + 0.1 · ln(1 + e^0.5) = 0.4266693 + 0.0974077
    values["label_smoothing"] = 0.1
    assert loss_of("sigmoid", [2.0], [-3.0], values=values) == pytest.approx([0.5240770], abs=1e-6)


def test_rebel_by_hand():
    # Δ = 5, Δr = 0.75 − 0.25, eta 4: (5 − 2)² = 9, in the paper's form (5/4 − 0.5)² = 0.5625
    rewards = {"chosen_reward": [0.75], "rejected_reward": [0.25]}
    assert loss_of("rebel", [2.0], [-3.0], values={"eta": 4.0}, **rewards) == [9.0]
    assert loss_of("rebel_paper", [2.0], [-3.0], values={"eta": 4.0}, **rewards) == [0.5625]


def test_sppo_by_hand():
    # beta 0.1: (2 − 10 · 0.3)² + (−3 + 10 · 0.2)² = 1 + 1
    won = {"chosen_win_probability": [0.8], "rejected_win_probability": [0.3]}
    assert loss_of("sppo", [2.0], [-3.0], values={"beta": 0.1}, **won) == about([2.0])


def test_simpo_by_hand():
    # (−18/4 − (−23/10)) · 0.5 − 0.5 = −1.6: ln(1 + e^1.6) = 1.783894
    tokens = {"chosen_tokens": [4.0], "rejected_tokens": [10.0]}
    got = loss_of("simpo", [2.0], [-3.0], values={"label_smoothing": 0.0}, **tokens)
    assert got == pytest.approx([1.7839], abs=1e-4)


def test_sft_weighs_tokens_alike():
    """Two pairs with 2 and 6 chosen tokens: 18 + 14 nats over 8 tokens, whatever the batch."""
    lengths = {"chosen_tokens": [2.0, 6.0], "mean_chosen_tokens": [4.0, 4.0]}
    got = loss_of("sft", [2.0, 6.0], [0.0, 0.0], **lengths)
    assert sum(got) / 2 == about(32 / 8)


AT_THE_REFERENCE = {
    **dict.fromkeys(["sigmoid", "sigmoid_norm", "aot", "aot_unpaired", "cpo"], math.log(2)),
    "robust": math.log(2),
    "hinge": 1.0,
    "ipo": 1.0,  # (1 / (2 · 0.5))²
    "exo_pair": -0.5 * math.log(0.9 * 0.1) - math.log(2),
    "discopop": (math.log(2) + 1) / 2,
    "nca_pair": 2 * math.log(2),
    "bco_pair": 2 * math.log(2),
    "sppo_hard": 2.0,
    "sppo": 2.0,  # probabilities of 1 and 1: two times (0 − 0.5 / 0.5)²
    "apo_zero": 1.0,
    "apo_down": 1.0,
    "rebel": 0.0,
    "rebel_paper": 0.0,
    "sft": 20.0,
    "simpo": 0.9 * math.log1p(math.exp(0.5)) + 0.1 * math.log1p(math.exp(-0.5)),
}


@pytest.mark.parametrize("name", losses.LOSSES)
def test_where_policy_and_reference_agree(name):
    assert loss_of(name) == about([AT_THE_REFERENCE[name]])


@pytest.mark.parametrize("name", PAIRWISE)
@given(pairs=st.lists(st.tuples(NATS, NATS, st.integers(1, 30), st.integers(1, 30)), min_size=2, max_size=5))
def test_a_pair_has_the_same_loss_in_every_batch(name, pairs):
    """So how a global batch is cut into micro-batches, devices or packs does not matter."""
    chosen, rejected, *tokens = (list(map(float, column)) for column in zip(*pairs, strict=True))
    lengths = dict(zip(("chosen_tokens", "rejected_tokens"), tokens, strict=True))
    together = loss_of(name, chosen, rejected, **lengths)
    alone = [
        loss_of(name, [c], [r], chosen_tokens=[float(n)], rejected_tokens=[float(m)])[0]
        for c, r, n, m in pairs
    ]
    assert together == pytest.approx(alone, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_gradients_are_those_of_the_formula(name):
    """Against differences in float64."""
    torch.manual_seed(1)
    made = batch(
        [1.0, -2.0, 0.4], [-0.6, 1.5, 0.1], chosen_tokens=[3.0, 4.0, 5.0], chosen_reward=[2.0, 1.5, 3.0]
    )
    fixed = {key: value.double() for key, value in vars(made).items() if "ref" in key or "logps" not in key}

    def loss(chosen, rejected):
        return losses.total(Batch(chosen, rejected, **fixed), name, VALUES)

    inputs = [made.chosen_logps.double().requires_grad_(), made.rejected_logps.double().requires_grad_()]
    assert torch.autograd.gradcheck(loss, inputs)


# How one loss follows from another.


@given(chosen=NATS, rejected=NATS, beta=BETA)
def test_without_label_smoothing_robust_is_sigmoid(chosen, rejected, beta):
    values = {"beta": beta, "label_smoothing": 0.0}
    one, other = (loss_of(name, [chosen], [rejected], values=values) for name in ("robust", "sigmoid"))
    assert one == about(other)


@given(chosen=NATS, rejected=NATS, beta=BETA, label_smoothing=SMOOTHING)
def test_of_one_pair_aot_is_sigmoid(chosen, rejected, beta, label_smoothing):
    values = {"beta": beta, "label_smoothing": label_smoothing}
    wanted = loss_of("sigmoid", [chosen], [rejected], values=values)
    assert loss_of("aot", [chosen], [rejected], values=values) == about(wanted)
    assert loss_of("aot_unpaired", [chosen], [rejected], values=values) == about(wanted)


@given(pairs=st.lists(st.tuples(NATS, NATS), min_size=2, max_size=6), seed=st.randoms())
def test_aot_unpaired_does_not_know_who_was_paired_with_whom(pairs, seed):
    chosen, rejected = (list(side) for side in zip(*pairs, strict=True))
    before = loss_of("aot_unpaired", chosen, rejected)
    seed.shuffle(rejected)
    assert loss_of("aot_unpaired", chosen, rejected) == before


@given(chosen=NATS, rejected=NATS, beta=BETA, tokens=st.integers(1, 40))
def test_per_token_and_beta_by_the_length_is_sigmoid(chosen, rejected, beta, tokens):
    """Where both have the same length."""
    lengths = {"chosen_tokens": [float(tokens)], "rejected_tokens": [float(tokens)]}
    norm = loss_of("sigmoid_norm", [chosen], [rejected], values={"beta": beta * tokens}, **lengths)
    plain = loss_of("sigmoid", [chosen], [rejected], values={"beta": beta, "label_smoothing": 0.0})
    assert norm == about(plain)


@given(chosen=NATS, rejected=NATS, beta=BETA)
def test_sppo_of_certain_wins_is_sppo_hard(chosen, rejected, beta):
    soft = loss_of("sppo", [chosen], [rejected], values={"beta": beta}, rejected_win_probability=[0.0])
    assert soft == about(loss_of("sppo_hard", [chosen], [rejected], values={"beta": beta}))


@given(chosen=NATS, rejected=NATS, reward=st.floats(-3, 3, width=32), eta=st.floats(0.1, 10))
def test_the_paper_writes_rebel_smaller_by_eta_squared(chosen, rejected, reward, eta):
    published, paper = (
        loss_of(name, [chosen], [rejected], values={"eta": eta}, chosen_reward=[reward])[0]
        for name in ("rebel", "rebel_paper")
    )
    assert published == pytest.approx(paper * eta**2, rel=1e-3, abs=1e-3)


@given(chosen=NATS, rejected=NATS)
def test_turning_a_pair_round_mirrors_the_label_smoothing(chosen, rejected):
    one = loss_of("sigmoid", [chosen], [rejected], values={"label_smoothing": 0.2})
    assert one == about(loss_of("sigmoid", [rejected], [chosen], values={"label_smoothing": 0.8}))


BOUNDED_BELOW = sorted(losses.LOSSES.keys() - {"robust", "sft"})


@pytest.mark.parametrize("name", BOUNDED_BELOW)
@given(chosen=NATS, rejected=NATS)
def test_no_loss_is_negative(name, chosen, rejected):
    assert loss_of(name, [chosen], [rejected])[0] >= -1e-5


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_far_margins_stay_finite(name):
    pairs = batch([1e4, -1e4, 200.0, -200.0], [-1e4, 1e4, -200.0, 200.0])
    pairs.chosen_logps.requires_grad_()
    loss = losses.total(pairs, name, VALUES)
    loss.sum().backward()
    assert loss.isfinite().all() and pairs.chosen_logps.grad.isfinite().all()


@pytest.mark.parametrize("name", sorted(losses.LOSSES.keys() - {"sft", "apo_down", "discopop"}))
def test_preferring_chosen_lowers_the_loss(name):
    """From the reference on; apo_down wants both completions to be less likely, sft knows chosen alone.

    discopop rises there, as its authors found it.
    """
    rewards = {"rejected_reward": [0.0]} if name.startswith("rebel") else {"rejected_win_probability": [0.0]}
    better = loss_of(name, [0.1], [-0.1], **rewards)[0]
    assert better < loss_of(name, **rewards)[0] < loss_of(name, [-0.1], [0.1], **rewards)[0]


class TestSums:
    def test_a_sum_weighs_each_loss(self):
        parts = [loss_of(name, [2.0], [-3.0])[0] for name in ("sigmoid", "bco_pair", "sft")]
        values = {"loss_weights": [0.8, 0.2, 1.5]}
        got = loss_of(["sigmoid", "bco_pair", "sft"], [2.0], [-3.0], values=values)[0]
        assert got == about(0.8 * parts[0] + 0.2 * parts[1] + 1.5 * parts[2])
        values = {"loss_weights": None}
        assert loss_of(["sigmoid", "bco_pair"], [2.0], [-3.0], values=values)[0] == about(sum(parts[:2]))

    def test_hyperparameters_are_those_of_its_losses(self):
        assert losses.hyperparameters("rebel") == {"eta", "reward_scaling"}
        assert losses.hyperparameters(["rebel", "sft"]) == {"eta", "reward_scaling", "beta", "loss_weights"}
        assert losses.columns(["rebel", "sppo", "rebel_paper"]) == [
            *("chosen_reward", "rejected_reward", "chosen_win_probability", "rejected_win_probability")
        ]

    def test_the_first_decides_what_rewards_are(self):
        made, values = batch([2.0], [-3.0]), VALUES | {"loss_weights": None, "beta": 0.5, "eta": 4.0}
        assert losses.implied_rewards(made, ["rebel", "sft"], values)[0].item() == 0.5
        assert losses.implied_rewards(made, ["sft", "rebel"], values)[0].item() == 1.0
        assert losses.implied_rewards(made, "cpo", values)[0].item() == -9.0


@pytest.mark.parametrize(
    ("loss_type", "sentence"),
    [
        ("sigmod", "there is no loss 'sigmod'; did you mean 'sigmoid'?"),
        (["sigmoid", "xyz"], "there is no loss 'xyz'; known: sigmoid, "),
    ],
    ids=str,
)
def test_an_unknown_loss(loss_type, sentence):
    with pytest.raises(InputError) as error:
        losses.check_names(loss_type)
    assert sentence in str(error.value)


def test_exo_pair_without_label_smoothing_is_infinite_and_refused():
    with pytest.raises(InputError, match="exo_pair is infinite if label_smoothing is 0"):
        losses.check(["sigmoid", "exo_pair"], VALUES | {"label_smoothing": 0.0, "loss_weights": None})


# Losses of the user's own.

OWN = """
from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid


def dpop(batch, beta, lam):
    \"\"\"Pal et al. 2024.\"\"\"
    return -logsigmoid(beta * (batch.margins - lam * (-batch.chosen_logratios).relu()))


def sigmoid(batch, beta, label_smoothing=0.0):
    logits = beta * batch.margins
    return -(1 - label_smoothing) * logsigmoid(logits) - label_smoothing * logsigmoid(-logits)


def rewarded(batch, eta, **more):
    return (batch.margins - eta * (batch.chosen_reward - batch.rejected_reward)) ** 2 * more["weight"]


def any_name(batch, **more):
    return (more["beta"] * batch.margins - more["eta"]) ** 2


def centered(batch, beta):
    return (batch.margins - batch.margins.mean()).relu() * beta


def sft(batch):
    return -batch.chosen_logps / batch.mean_chosen_tokens


def mean(batch, beta):
    return (beta * batch.margins).mean()


def number(batch):
    return 1.0


def column(batch):
    return batch.chosen_logps[:, None]


def constant(batch):
    return torch.ones(len(batch.chosen_logps))


def broken(batch):
    return batch.chosen_logp
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A function from the name of a function above to what the config calls it."""
    path = tmp_path_factory.mktemp("mine") / "losses.py"
    path.write_text(OWN)
    return lambda name: f"{path}:{name}"


def test_a_loss_of_ones_own_by_hand(own):
    # beta 0.1, λ 5, c −2, Δ 1: ln(1 + e^(−0.1 (1 − 5 · 2))) = ln(1 + e^0.9) = 1.241154
    values = {"beta": 0.1, "loss_arguments": {"lam": 5.0}}
    assert loss_of(own("dpop"), [-2.0], [-3.0], values=values) == pytest.approx([1.241154], abs=1e-5)
    # Where chosen has become likelier it is DPO.
    assert loss_of(own("dpop"), [2.0], [-3.0], values=values) == pytest.approx([0.4740770], abs=1e-6)


@given(chosen=NATS, rejected=NATS, beta=BETA, label_smoothing=SMOOTHING, weight=st.floats(-2, 2))
def test_the_same_function_is_the_same_loss(own, chosen, rejected, beta, label_smoothing, weight):
    """Alone, and in a sum with a built-in one."""
    values = {"beta": beta, "label_smoothing": label_smoothing, "loss_arguments": None}
    wanted = loss_of("sigmoid", [chosen], [rejected], values=values)
    assert loss_of(own("sigmoid"), [chosen], [rejected], values=values) == about(wanted)
    values["loss_weights"] = [weight, 1.0]
    got = loss_of([own("sigmoid"), "hinge"], [chosen], [rejected], values=values)
    assert got == about(loss_of(["sigmoid", "hinge"], [chosen], [rejected], values=values))


def test_what_a_loss_of_ones_own_reads_is_found(own):
    values = VALUES | {"loss_arguments": {"lam": 5.0, "weight": 2.0}, "loss_weights": None}
    assert losses.hyperparameters(own("dpop")) == {"beta", "loss_arguments"}
    assert losses.hyperparameters([own("sft"), "ipo"]) == {"beta", "loss_arguments", "loss_weights"}
    assert losses.hyperparameters(own("any_name")) == {"loss_arguments", *losses.SHARED}
    assert losses.columns(own("dpop"), values) == []
    assert losses.columns([own("rewarded"), "sppo"], values) == [
        *("chosen_reward", "rejected_reward", "chosen_win_probability", "rejected_win_probability")
    ]
    every = [own(name) for name in ("dpop", "sigmoid", "rewarded", "centered", "sft")]
    assert losses.sorting([*every, "aot"], values) == [own("centered"), "aot"]
    assert losses.own_files(every) == [own("").rstrip(":")]


def test_what_rewards_are_under_a_loss_of_ones_own(own):
    made, values = batch([2.0], [-3.0]), VALUES | {"beta": 0.5, "eta": 4.0}
    for name, reward in (("dpop", 1.0), ("rewarded", 0.5), ("sft", 2.0), ("any_name", 1.0)):
        assert losses.implied_rewards(made, own(name), values)[0].item() == reward


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mean", r"mean gives a tensor of shape \(\) for 8 pairs; return one for each"),
        ("number", "number gives 1.0 for 8 pairs"),
        ("column", r"column gives a tensor of shape \(8, 1\)"),
        ("constant", "constant depends on neither chosen_logps nor rejected_logps"),
        ("broken", r"losses.py, line \d+: AttributeError: 'Batch' object has no attribute 'chosen_logp'"),
    ],
)
def test_a_loss_that_is_none_is_refused_by_its_trial(own, name, sentence):
    with pytest.raises(InputError, match=sentence):
        losses.sorting(own(name), VALUES)


def test_the_docs_have_every_loss():
    text = Path("docs/losses.md").read_text(encoding="utf-8").split("| field | meaning |")[0]
    rows = re.findall(r"^\| `(\w+)` \|", text, re.M)
    assert sorted(rows) == sorted(losses.LOSSES)

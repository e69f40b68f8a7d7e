"""The losses on preference pairs: pure functions of log-probabilities, rewards and lengths.

Each function takes a Batch of N pairs and the loss's hyperparameters, floats by TRL's names, and returns the
loss of each pair: (N,), float32; averaging them is the trainer's part. Names and numbers are those of TRL's
DPOTrainer (cpo and simpo: of its CPOTrainer; rebel, rebel_paper and sppo: of the authors). In the equations

    c, r      log π(y|x) − log π_ref(y|x), the log-ratio of the chosen and of the rejected completion
    Δ         c − r
    |c|, |r|  their numbers of tokens, the end token included
    σ         the logistic function

The loss of a pair depends on this pair alone, so accumulation, devices and packing do not matter. There are
two exceptions: sft weighs all tokens equally (see there), and the losses of WHOLE_BATCH sort the batch, which
a training must then hold at once. losses.py combines them as the config sets. The workflow reads
HYPERPARAMETERS, so torch is imported late.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass
class Batch:
    """N pairs as the losses see them: tensors of shape (N,), float32; only the first two have gradients.

    logps are sums over a completion's tokens. Rewards, and the probabilities of beating a random completion
    of the prompt, are NaN if the data has none. mean_chosen_tokens is one number, N times: the mean of
    chosen_tokens over all averaged pairs, which may be more than this batch's.
    """

    chosen_logps: torch.Tensor
    rejected_logps: torch.Tensor
    ref_chosen_logps: torch.Tensor
    ref_rejected_logps: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor
    mean_chosen_tokens: torch.Tensor
    chosen_reward: torch.Tensor
    rejected_reward: torch.Tensor
    chosen_win_probability: torch.Tensor
    rejected_win_probability: torch.Tensor

    @property
    def chosen_logratios(self):
        return self.chosen_logps - self.ref_chosen_logps

    @property
    def rejected_logratios(self):
        return self.rejected_logps - self.ref_rejected_logps

    @property
    def margins(self):
        """Return Δ: how much more than the reference the policy prefers chosen to rejected, in nats."""
        return self.chosen_logratios - self.rejected_logratios


def _log_sigmoid(values):
    from torch.nn.functional import logsigmoid

    return logsigmoid(values)


def _smoothed(logits, label_smoothing):
    """Compute −(1 − ε) log σ(logits) − ε log σ(−logits): conservative DPO's form of the logistic loss."""
    return -(1 - label_smoothing) * _log_sigmoid(logits) - label_smoothing * _log_sigmoid(-logits)


# Of the difference between the log-ratios.


def sigmoid(batch, beta, label_smoothing):
    """Compute DPO (Rafailov et al. 2023, arXiv 2305.18290, equation 7), conservative if label_smoothing > 0.

        −(1 − ε) log σ(βΔ) − ε log σ(−βΔ)

    beta > 0: weight of the Kullback-Leibler penalty. label_smoothing ε in [0, 0.5): the assumed probability
    that a pair is mislabelled (Mitchell 2023, "A note on DPO with noisy preferences"). TRL no longer has it
    for this loss. Where policy and reference agree, the loss is ln 2.
    """
    return _smoothed(beta * batch.margins, label_smoothing)


def robust(batch, beta, label_smoothing):
    """Compute robust DPO (Chowdhury et al. 2024, arXiv 2403.00409): unbiased if a share ε is mislabelled.

        (−(1 − ε) log σ(βΔ) + ε log σ(−βΔ)) / (1 − 2ε)

    label_smoothing (ε) in [0, 0.5); the paper's is 0.1. Not bounded from below where ε > 0.
    """
    logits = beta * batch.margins
    clean, flipped = _log_sigmoid(logits), _log_sigmoid(-logits)
    return (label_smoothing * flipped - (1 - label_smoothing) * clean) / (1 - 2 * label_smoothing)


def exo_pair(batch, beta, label_smoothing):
    """Compute EXO for pairs (Ji et al. 2024, arXiv 2402.00856, equation 16): the reverse KL divergence.

        σ(βΔ) (log σ(βΔ) − log(1 − ε)) + σ(−βΔ) (log σ(−βΔ) − log ε)

    label_smoothing (ε) in (0, 0.5), the paper's is 1e-3; at 0 the loss is infinite: `check` refuses it.
    """
    logits = beta * batch.margins
    right = _log_sigmoid(logits) - math.log1p(-label_smoothing)
    wrong = _log_sigmoid(-logits) - math.log(label_smoothing)
    return logits.sigmoid() * right + (-logits).sigmoid() * wrong


def hinge(batch, beta):
    """Compute SLiC's hinge (Zhao et al. 2023, arXiv 2305.10425) on log-ratios, as in RSO (Liu et al. 2023).

        max(0, 1 − βΔ)

    A pair whose margin is beyond 1/β has no gradient.
    """
    return (1 - beta * batch.margins).relu()


def ipo(batch, beta):
    """Compute IPO (Azar et al. 2023, arXiv 2310.12036, equation 17), with log-ratios per token as in TRL.

        (c/|c| − r/|r| − 1/(2β))²

    beta > 0 is the paper's τ. The paper sums over tokens; its authors told TRL's that their results come from
    means over tokens.
    """
    return (_mean_margins(batch) - 1 / (2 * beta)) ** 2


def sigmoid_norm(batch, beta):
    """Compute length-normalized DPO, on log-ratios per token (Tülu 3, Lambert et al. 2024, arXiv 2411.15124).

        −log σ(β (c/|c| − r/|r|))

    beta > 0 is larger than DPO's by about the length of a completion; Tülu 3 takes 5.
    """
    return -_log_sigmoid(beta * _mean_margins(batch))


def discopop(batch, beta, discopop_tau):
    """Compute DiscoPOP (Lu et al. 2024, arXiv 2406.08414, equation 5): a loss found by a language model.

        (1 − m) (−log σ(βΔ)) + m exp(−βΔ),    m = σ(βΔ/τ)

    discopop_tau > 0: the paper's τ is 0.05. Not convex: with that τ it rises between βΔ = −0.12 and 0.08,
    where a training begins.
    """
    logits = beta * batch.margins
    mixed = (logits / discopop_tau).sigmoid()
    # exp(−βΔ) alone overflows at βΔ = −89, where m is 0.
    exponential = (_log_sigmoid(logits / discopop_tau) - logits).exp()
    return -_log_sigmoid(logits) * (1 - mixed) + exponential


def rebel(batch, eta):
    """Compute REBEL's regression of relative rewards (Gao et al. 2024, arXiv 2404.16767), as published.

        (Δ − η Δr)²,    Δr = chosen reward − rejected reward

    eta > 0: nats of log-ratio for one unit of reward. Where policy and reference agree, the loss is (η Δr)².
    """
    return (batch.margins - eta * (batch.chosen_reward - batch.rejected_reward)) ** 2


def rebel_paper(batch, eta):
    """Compute REBEL as the paper writes it (Gao et al. 2024, arXiv 2404.16767, Algorithm 1).

        (Δ/η − Δr)²

    The minimiser of `rebel`, a loss and gradients smaller by η²: clipping gradients, Adam's epsilon and
    another loss beside it make the difference.
    """
    return (batch.margins / eta - (batch.chosen_reward - batch.rejected_reward)) ** 2


def _mean_margins(batch):
    return batch.chosen_logratios / batch.chosen_tokens - batch.rejected_logratios / batch.rejected_tokens


# Functions of each log-ratio alone.


def nca_pair(batch, beta):
    """Compute NCA for pairs (Chen et al. 2024, arXiv 2402.05369): the likelihood of chosen must not fall.

        −log σ(βc) − ½ log σ(−βc) − ½ log σ(−βr)

    At the reference it is 2 ln 2.
    """
    chosen, rejected = beta * batch.chosen_logratios, beta * batch.rejected_logratios
    return -_log_sigmoid(chosen) - 0.5 * _log_sigmoid(-chosen) - 0.5 * _log_sigmoid(-rejected)


def bco_pair(batch, beta):
    """Compute BCO for pairs (Jung et al. 2024, arXiv 2404.04656) with a reward shift of 0, as in TRL.

        −log σ(βc) − log σ(−βr)

    The paper subtracts a running mean of rewards from both; here a pair's loss is its own.
    """
    return -_log_sigmoid(beta * batch.chosen_logratios) - _log_sigmoid(-beta * batch.rejected_logratios)


def sppo_hard(batch, beta):
    """Compute SPPO (Wu et al. 2024, arXiv 2405.00675, equation 4.7) where chosen always beats rejected.

        (c − 1/(2β))² + (r + 1/(2β))²

    beta > 0: the paper's 1/η, 0.001 there.
    """
    return (batch.chosen_logratios - 0.5 / beta) ** 2 + (batch.rejected_logratios + 0.5 / beta) ** 2


def sppo(batch, beta):
    """Compute SPPO (Wu et al. 2024, arXiv 2405.00675, equation 4.7) with estimated probabilities P.

        (c − (P_c − ½)/β)² + (r − (P_r − ½)/β)²

    The authors' code has half of it. With P_c = 1 and P_r = 0 it is sppo_hard.
    """
    chosen = batch.chosen_logratios - (batch.chosen_win_probability - 0.5) / beta
    rejected = batch.rejected_logratios - (batch.rejected_win_probability - 0.5) / beta
    return chosen**2 + rejected**2


def apo_zero(batch, beta):
    """Compute APO-zero (D'Oosterlinck et al. 2024, arXiv 2408.06266, equation 7): chosen up, rejected down.

        1 − σ(βc) + σ(βr)

    For data whose chosen completions are better than the policy's own.
    """
    return 1 - (beta * batch.chosen_logratios).sigmoid() + (beta * batch.rejected_logratios).sigmoid()


def apo_down(batch, beta):
    """Compute APO-down (D'Oosterlinck et al. 2024, arXiv 2408.06266, equation 8): both down, rejected more.

        σ(βc) + 1 − σ(βΔ)

    For data whose chosen completions are worse than the policy's own.
    """
    return (beta * batch.chosen_logratios).sigmoid() + 1 - (beta * batch.margins).sigmoid()


# Without the reference: its log-probabilities count for nothing but rewards/* and logs.


def sft(batch, beta):
    """Compute the negative log-likelihood of chosen, a mean over tokens; RPO and CPO add it to a loss.

        −log π(chosen|x) / mean of |c|

    The mean of |c| is that of the whole global batch. So a step's loss is the sum over its pairs divided by
    the number of their tokens, however they are spread. TRL uses each device's batch alone, which is the same
    on one device without accumulation. beta only scales the metrics rewards/*, as in TRL.
    """
    return -batch.chosen_logps / batch.mean_chosen_tokens


def cpo(batch, beta, label_smoothing):
    """Compute CPO's preference part (Xu et al. 2024, arXiv 2401.08417); `[cpo, sft]` is all of it.

    −(1 − ε) log σ(βd) − ε log σ(−βd),    d = log π(chosen|x) − log π(rejected|x)
    """
    return _smoothed(beta * (batch.chosen_logps - batch.rejected_logps), label_smoothing)


def simpo(batch, beta, label_smoothing, simpo_gamma):
    """Compute SimPO (Meng et al. 2024, arXiv 2405.14734, equation 6), conservative if label_smoothing > 0.

        −(1 − ε) log σ(βd − γ) − ε log σ(γ − βd),    d = log π(chosen|x)/|c| − log π(rejected|x)/|r|

    beta > 0: 2 to 2.5 in the paper. simpo_gamma (γ) ≥ 0: the margin to reach, 0.3 to 1.6 there.
    """
    chosen, rejected = batch.chosen_logps / batch.chosen_tokens, batch.rejected_logps / batch.rejected_tokens
    return _smoothed(beta * (chosen - rejected) - simpo_gamma, label_smoothing)


# Of the batch as a whole.


def aot(batch, beta, label_smoothing):
    """Compute AOT for pairs (Melnyk et al. 2024, arXiv 2406.05882): margins above the reference's.

        −(1 − ε) log σ(βδ) − ε log σ(−βδ),    δ = the policy's margins, sorted, − the reference's, sorted

    A margin is log π(chosen|x) − log π(rejected|x). Sorting makes the loss one of the batch: the i-th number
    returned is that of the i-th ranks. Of one pair it is `sigmoid`.
    """
    policy = (batch.chosen_logps - batch.rejected_logps).sort().values
    reference = (batch.ref_chosen_logps - batch.ref_rejected_logps).sort().values
    return _smoothed(beta * (policy - reference), label_smoothing)


def aot_unpaired(batch, beta, label_smoothing):
    """Compute AOT for unpaired data (Melnyk et al. 2024, arXiv 2406.05882): chosen above rejected.

        −(1 − ε) log σ(βδ) − ε log σ(−βδ),    δ = chosen's log-ratios, sorted, − rejected's, sorted

    As in `aot`, the loss is one of the batch; of one pair it is `sigmoid`.
    """
    deltas = batch.chosen_logratios.sort().values - batch.rejected_logratios.sort().values
    return _smoothed(beta * deltas, label_smoothing)


_ALL = [sigmoid, robust, exo_pair, hinge, ipo, sigmoid_norm, discopop, rebel, rebel_paper]
_ALL += [nca_pair, bco_pair, sppo_hard, sppo, apo_zero, apo_down, sft, cpo, simpo, aot, aot_unpaired]
LOSSES = {loss.__name__: loss for loss in _ALL}
# Columns of the pairs that a loss cannot do without.
COLUMNS = {
    "rebel": ("chosen_reward", "rejected_reward"),
    "rebel_paper": ("chosen_reward", "rejected_reward"),
    "sppo": ("chosen_win_probability", "rejected_win_probability"),
}
WHOLE_BATCH = ("aot", "aot_unpaired")
# The hyperparameters of each loss, by their names in the config. Rewards are scaled before there are batches.
HYPERPARAMETERS = {name: tuple(inspect.signature(loss).parameters)[1:] for name, loss in LOSSES.items()}
# Hyperparameters with their own keys in the config, which a user's losses can also take.
SHARED = {key for keys in HYPERPARAMETERS.values() for key in keys}
for _name in ("rebel", "rebel_paper"):
    HYPERPARAMETERS[_name] += ("reward_scaling",)

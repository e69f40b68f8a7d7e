"""What training from preference pairs minimises: pure functions of log-probability ratios.

The log-ratio of a completion y to a prompt x is log π(y|x) − log π_ref(y|x): the difference of two sums of
token log-probabilities, float32. Every function takes tensors of shape (pairs,), float32, and returns the
loss of each pair: (pairs,), float32. Averaging them is the trainer's part. Torch is imported late: the
workflow reads HYPERPARAMETERS, too.
"""

# The hyperparameters of each loss_type.
HYPERPARAMETERS = {"sigmoid": ("beta", "label_smoothing"), "rebel": ("eta",)}


def sigmoid(chosen_logratios, rejected_logratios, beta, label_smoothing):
    """DPO (Rafailov et al. 2023, equation 7), conservative where label_smoothing (ε) is not 0.

        −(1 − ε) log σ(βΔ) − ε log σ(−βΔ),    Δ = chosen log-ratio − rejected log-ratio

    beta: float > 0, weight of the Kullback-Leibler penalty. label_smoothing: float in [0, 0.5), the assumed
    probability that a pair is the wrong way round (Mitchell 2023, "A note on DPO with noisy preferences").
    Where policy and reference agree, the loss is ln 2.
    """
    from torch.nn.functional import logsigmoid

    logits = beta * (chosen_logratios - rejected_logratios)
    return -(1 - label_smoothing) * logsigmoid(logits) - label_smoothing * logsigmoid(-logits)


def rebel(chosen_logratios, rejected_logratios, chosen_rewards, rejected_rewards, eta):
    """REBEL's regression of relative rewards (Gao et al. 2024, Algorithm 1), as the authors' code has it.

        (Δ − η Δr)²,    Δ = chosen log-ratio − rejected log-ratio,    Δr = chosen reward − rejected reward

    eta: float > 0, scale of the reward differences. The paper writes (Δ/η − Δr)²: the same minimiser, a
    loss smaller by η², so clipping gradients or adding weight decay trains differently. Where policy and
    reference agree, the loss is (η Δr)².
    """
    return (chosen_logratios - rejected_logratios - eta * (chosen_rewards - rejected_rewards)) ** 2

"""Estimate how far verdicts follow the answers' lengths, and the win rate at equal length.

The length-controlled win rate is that of AlpacaEval 2 (Dubois et al. 2024), for one policy against another
and without its term for the question's difficulty, which it fits to the annotations of many models. With
y = 1, 1/2, 0 for a match won, tied, lost, and d the characters of the policy's answer less the other's,

    P(y) = sigmoid(theta + phi * tanh(d / s)),    s the standard deviation of d,

is fitted by least mean cross-entropy + PENALTY * phi^2 / 2. Then

    length_controlled = sigmoid(theta),

the win rate that the fit gives answers of equal length. phi above 0 is a judge's liking for the longer
answer, or a longer answer's merit: this cannot tell them apart. PENALTY is what comes nearest to AlpacaEval's
published rates: measurements/length_control.py. Without it phi takes most of the difference between two
models of which one always answers at greater length.
"""

import numpy as np

from prefline.judging.winrate import interval_of, outcome, resampled

SCORES = {"win": 1.0, "tie": 0.5, "loss": 0.0}
STEPS = 30  # of Newton's method; it is still after ten
MOST_SAMPLES = 1000  # of the bootstrap: each is a fit
PENALTY = 1 / 64  # of phi, in the mean over matches
LEAST_OVERLAP = 0.1
LARGEST = 15.0  # of theta: a rate of 1 within 3e-7, where every match was won


def rows_of(judgments, lengths_1, lengths_2):
    """Return (scores float64 [n], differences float64 [n], question ids [n]) of the matches without error.

    lengths_1, lengths_2: {(question_id, turn): characters (int) of model_1's, model_2's answer}.
    """
    scores, differences, questions = [], [], []
    for row in judgments:
        result = outcome(row)
        if result != "error":
            key = row["question_id"], row["turn"]
            scores.append(SCORES[result])
            differences.append(lengths_1[key] - lengths_2[key])
            questions.append(row["question_id"])
    return np.array(scores), np.array(differences, dtype=np.float64), questions


def longer_wins(scores, differences):
    """Share of the decided matches between answers of unequal length that the longer won; None without."""
    decided = (scores != 0.5) & (differences != 0)
    if not decided.any():
        return None
    return float(np.mean((scores[decided] == 1) == (differences[decided] > 0)))


def overlap(differences):
    """Return the share (float) of matches in which the model that usually writes less did not."""
    return float(min(np.mean(differences >= 0), np.mean(differences <= 0)))


def fit(scores, differences, weights=None):
    """Return (theta, phi), float64 arrays [samples], of the regression above.

    scores, differences: float64 [n]; weights: float64 [samples, n], how often each match counts, None for
    each once.
    """
    weights = np.ones((1, len(scores))) if weights is None else weights
    spread = differences.std()
    lengths = np.tanh(differences / spread) if spread else np.zeros_like(differences)
    penalty = PENALTY * weights.sum(1)
    theta, phi = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(STEPS):
        rates = 1 / (1 + np.exp(-(theta[:, None] + phi[:, None] * lengths)))
        gap, slack = weights * (rates - scores), weights * rates * (1 - rates) + 1e-9
        gradient = gap.sum(1), gap @ lengths + penalty * phi
        a, b, c = slack.sum(1), slack @ lengths, slack @ lengths**2 + penalty
        determinant = a * c - b * b
        # Longer steps would oscillate if all matches had the same outcome.
        theta = theta - np.clip((c * gradient[0] - b * gradient[1]) / determinant, -1, 1)
        phi = phi - np.clip((a * gradient[1] - b * gradient[0]) / determinant, -1, 1)
        theta = np.clip(theta, -LARGEST, LARGEST)
    return theta, phi


def summary(judgments, lengths_1, lengths_2, samples, seed):
    """Return how far the verdicts follow length: dict of plain numbers, None where no match counts.

    longer_wins: see above; length_slope: phi; length_controlled with its 95 % interval ci_low, ci_high, a
    bootstrap of `samples`, at most MOST_SAMPLES, draws of whole questions; overlap: see above; extrapolated:
    whether it is below LEAST_OVERLAP, so that few matches tell of equal lengths. The rest: as for rows_of.
    """
    scores, differences, questions = rows_of(judgments, lengths_1, lengths_2)
    if not len(scores):
        names = ("longer_wins", "overlap", "extrapolated", "length_slope")
        names += ("length_controlled", "ci_low", "ci_high")
        return dict.fromkeys(names)
    theta, phi = fit(scores, differences)
    names = list(dict.fromkeys(questions))
    number = [names.index(question) for question in questions]
    draws = resampled(len(names), min(samples, MOST_SAMPLES), seed)
    rates = 1 / (1 + np.exp(-fit(scores, differences, draws[:, number].astype(np.float64))[0]))
    low, high = interval_of(rates)
    return {
        "longer_wins": longer_wins(scores, differences),
        "overlap": overlap(differences),
        "extrapolated": overlap(differences) < LEAST_OVERLAP,
        "length_slope": float(phi[0]),
        "length_controlled": float(1 / (1 + np.exp(-theta[0]))),
        "ci_low": low,
        "ci_high": high,
    }

"""Win rates of pairwise judgments, their intervals, and how much the verdicts follow the position.

A match is one (question, turn), judged in two games with the answers' positions swapped. As in FastChat's
show_result.py: a match is won if both games are, lost if both are, and a tie otherwise; a match with a game
in error does not count, and

    win_rate_adjusted = (wins + ties / 2) / (wins + ties + losses).

Judgments are dicts in FastChat's form; the rates are those of their model_1.
"""

import functools
import math

import numpy as np

# Points of the first position less those of the second, in game 1 (model_1 first) and in game 2.
POINTS = {"model_1": 1, "tie": 0, "model_2": -1}
OUTCOMES = ("win", "tie", "loss", "error")
CONFIDENCE = 0.95
# Degrees of freedom beyond which Student's t is as good as normal.
MOST_FREEDOM = 1000


def outcome(judgment):
    """Return the outcome of a match for model_1: one of OUTCOMES."""
    games = (judgment["g1_winner"], judgment["g2_winner"])
    if "error" in games:
        return "error"
    if games == ("model_1", "model_1"):
        return "win"
    if games == ("model_2", "model_2"):
        return "loss"
    return "tie"


def of_model(judgments, model):
    """Return the judgments (list of dict) of a model's matches with that model as model_1."""
    turned = {"model_1": "model_2", "model_2": "model_1"}
    found = []
    for row in judgments:
        if row["model_1"] == model:
            found.append(row)
        elif row["model_2"] == model:
            names = {"model_1": model, "model_2": row["model_1"]}
            games = {game: turned.get(row[game], row[game]) for game in ("g1_winner", "g2_winner")}
            # Seen from the other side, the answers' positions are swapped, and so are the games.
            found.append({**row, **names, "g1_winner": games["g2_winner"], "g2_winner": games["g1_winner"]})
    return found


def summary(judgments):
    """Return counts, rates and the interval of win_rate_adjusted for some judgments: dict of plain numbers.

    The rates and the interval are None where no match counts.
    """
    counts = {name: 0 for name in OUTCOMES}
    questions = {}
    for judgment in judgments:
        result = outcome(judgment)
        counts[result] += 1
        if result != "error":
            questions.setdefault(judgment["question_id"], [0, 0, 0])[OUTCOMES.index(result)] += 1
    counted = counts["win"] + counts["tie"] + counts["loss"]
    low, high = interval(list(questions.values()))
    return counts | {
        "matches": counted,
        "win_rate": counts["win"] / counted if counted else None,
        "loss_rate": counts["loss"] / counted if counted else None,
        "win_rate_adjusted": adjusted(counts["win"], counts["tie"], counts["loss"]) if counted else None,
        "ci_low": low,
        "ci_high": high,
    }


def counted(summary):
    """Return how many of the matches of a `summary` count, as text: "145 of 160"."""
    return f"{summary['matches']} of {summary['matches'] + summary['error']}"


def adjusted(win, tie, loss):
    """Return win_rate_adjusted of counts: numbers or arrays of them. A tie is half a win."""
    return (win + 0.5 * tie) / (win + tie + loss)


def interval(questions):
    """Return the 95 % interval (low, high) of win_rate_adjusted, or (None, None) without questions.

    questions: one (wins, ties, losses) for each question. It is Wilson's interval (1927) for an effective
    number of matches: as many independent wins and losses as would be as uncertain as these questions, whose
    turns are not independent. Of equal questions, each counts as one match; a bootstrap would give a point.
    """
    if len(questions) == 0:
        return None, None
    counts = np.asarray(questions, dtype=np.float64)
    points, matches = counts[:, 0] + counts[:, 1] / 2, counts.sum(axis=1)
    # Ties are less uncertain than wins and losses, but not without limit in a few questions.
    return _wilson(points, matches, matches.sum(), most=4)


def mean_interval(questions, lowest, highest):
    """Return the 95 % interval (low, high) of a mean of values from `lowest` to `highest`.

    questions: the values (list of float) of each question, which are not independent. It is Wilson's interval
    for an effective number, as of `interval`: equal values are no proof that all are.
    """
    sums = np.array([sum(values) for values in questions], dtype=np.float64)
    counts = np.array([len(values) for values in questions], dtype=np.float64)
    width = highest - lowest
    ends = _wilson((sums - lowest * counts) / width, counts, len(questions), most=16)
    return lowest + width * ends[0], lowest + width * ends[1]


def _wilson(sums, counts, independent, most):
    """Return Wilson's interval of the mean of values from 0 to 1: of their sums and counts by question.

    independent: the most values that Student's t may take for independent; most: the largest effective number
    for each question.
    """
    number, rate = len(counts), sums.sum() / counts.sum()
    of_sample = number / max(number - 1, 1)
    squares = ((sums - rate * counts) ** 2).sum() * of_sample
    binomial = rate * (1 - rate)
    effective = number
    if squares > 1e-12:
        effective = min(binomial * counts.sum() ** 2 / squares, most * number)
    return wilson(rate, effective, student(max(min(effective * of_sample, independent) - 1, 1)))


def wilson(rate, effective, z):
    """Return Wilson's interval (low, high) of a rate of as many independent matches; z: the quantile."""
    middle = (rate + z * z / (2 * effective)) / (1 + z * z / effective)
    variance = max(rate * (1 - rate), 0) / effective
    half = z / (1 + z * z / effective) * math.sqrt(variance + (z / (2 * effective)) ** 2)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


@functools.cache
def student(freedom):
    """Return the two-sided 95 % quantile (float) of Student's t with `freedom` degrees of freedom (from 1).

    From 3 by the expansion in 1 / freedom of Abramowitz and Stegun (26.7.5), to 0.2 %; below by `tail`.
    """
    if freedom < 3:
        low, high = 3.0, 13.0
        while high - low > 1e-6:
            middle = (low + high) / 2
            low, high = (middle, high) if tail(middle, freedom) > 1 - CONFIDENCE else (low, middle)
        return low
    z = 1.959964
    terms = [
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    ]
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def tail(t, freedom):
    """Return the two-sided p (float) of `t` under Student's t with `freedom` degrees of freedom (from 1).

    With t = √freedom · tan(x), the density is cos(x)^(freedom - 1), up to a constant.
    """
    freedom = min(freedom, MOST_FREEDOM)
    nodes, weights = _gauss()

    def area(start):
        half = (math.pi / 2 - start) / 2
        return half * float((weights * np.cos(start + half * (nodes + 1)) ** (freedom - 1)).sum())

    return min(1.0, area(math.atan(t / math.sqrt(freedom))) / area(0.0))


@functools.cache
def _gauss():
    """Return the nodes and weights of Gauss and Legendre's quadrature from -1 to 1."""
    return np.polynomial.legendre.leggauss(200)


def resampled(number, samples, seed):
    """Return how often each of `number` questions is drawn in each of `samples`: int64 [samples, number]."""
    return np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=samples)


def interval_of(draws):
    """Return the middle 95 % (low, high) of a statistic's bootstrap draws (array)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def p_value(judgments):
    """Return the two-sided p (float) of the sign-flip test that both models are equal; 1 without a match."""
    margins = {}
    for judgment in judgments:
        points = {"win": 1, "loss": -1}.get(outcome(judgment), 0)
        margins[judgment["question_id"]] = margins.get(judgment["question_id"], 0) + points
    return flip_test(margins.values())


def flip_test(margins):
    """Return the two-sided p (float) that the `margins` (int, one for each question) are symmetric about 0.

    Under that hypothesis, a question's margin is as likely as its negative. The p-value is the share of all
    2^n sign changes whose sum is at least as far from 0 as this one. It is exact: the distribution of the sum
    is the convolution of the questions' distributions.
    """
    steps = [abs(margin) for margin in margins if margin]
    chances = np.ones(1)  # of the sums -k, …, k
    for step in steps:
        spread = np.zeros(len(chances) + 2 * step)
        spread[: len(chances)] += chances / 2
        spread[2 * step :] += chances / 2
        chances = spread
    sums = np.arange(len(chances)) - len(chances) // 2
    return min(1.0, float(chances[np.abs(sums) >= abs(sum(margins))].sum()))


def position_bias_interval(judgments):
    """Return the 95 % interval (low, high) of biased_toward_first - biased_toward_second, or Nones."""
    questions = {}
    for judgment in judgments:
        if outcome(judgment) != "error":
            lean = POINTS[judgment["g1_winner"]] - POINTS[judgment["g2_winner"]]
            questions.setdefault(judgment["question_id"], []).append((lean > 0) - (lean < 0))
    return mean_interval(list(questions.values()), -1, 1) if questions else (None, None)


def position_bias(judgments):
    """Return fractions of the matches without error: consistency and the bias toward either position.

    A consistent match has the same winner in both games. Any other favours the answer that was first, or
    second, in more of its games (as in "Judging LLM-as-a-Judge", Zheng et al. 2023, table 2). None without
    matches.
    """
    leans = [
        POINTS[judgment["g1_winner"]] - POINTS[judgment["g2_winner"]]
        for judgment in judgments
        if outcome(judgment) != "error"
    ]
    if not leans:
        return {"consistency": None, "biased_toward_first": None, "biased_toward_second": None}
    return {
        "consistency": sum(lean == 0 for lean in leans) / len(leans),
        "biased_toward_first": sum(lean > 0 for lean in leans) / len(leans),
        "biased_toward_second": sum(lean < 0 for lean in leans) / len(leans),
    }

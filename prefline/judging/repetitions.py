"""Win rates of a run whose training was repeated with other seeds: their mean, spread, intervals and tests.

The seeds and the questions of a run are samples, crossed: each seed's policy answers each question. Studies
of several readers of the same cases estimate the variance of the mean so (Obuchowski and Rockette 1995, doi
10.1080/03610919508813243; degrees of freedom: Hillis 2007, doi 10.1002/sim.2532). Seeds are the readers
here, and questions the cases:

    V = V_seeds + max(V_questions - V_both, 0),    freedom = V² / (V_seeds² / (seeds - 1))

V_seeds is the variance of the mean that the seeds' rates give, V_questions that of the questions' rates, and
V_both that of what neither explains, which is in both. V_seeds is taken to be no less than V_both, with whose
degrees of freedom then: it is so on average. In a comparison of two runs, each adds its V_seeds and
V_both; a policy without repetitions adds neither, so that the result holds for this one training of it.

Rates are points from 0 to 1: 1 for a win, 1/2 for a tie. Every seed counts the same.
"""

import math

import numpy as np

from prefline.judging import winrate

COUNTS = (*winrate.OUTCOMES, "matches")


def summary(rows):
    """Return what `winrate.summary` does, of a run over its seeds, with the spread of their rates (dict).

    rows: {policy: its judgments} of the run's seeds. win_rate_adjusted is the mean of the seeds' rates; sd,
    lowest and highest: of these, None with one seed; p_value: that this mean is one half. Counts are sums.
    """
    of_seeds = {policy: winrate.summary(judgments) for policy, judgments in rows.items()}
    found = {name: sum(one[name] for one in of_seeds.values()) for name in COUNTS}
    rates = [one["win_rate_adjusted"] for one in of_seeds.values()]
    names = ("win_rate", "loss_rate", "win_rate_adjusted", "ci_low", "ci_high", "sd", "lowest", "highest")
    found = {"policies": list(rows), **found, **dict.fromkeys(names), "p_value": 1.0}
    if None in rates:
        return found
    for name in ("win_rate", "loss_rate", "win_rate_adjusted"):
        found[name] = sum(one[name] for one in of_seeds.values()) / len(rates)
    if len(rates) == 1:
        (one,), (judgments,) = of_seeds.values(), rows.values()
        low, high, p_value = one["ci_low"], one["ci_high"], winrate.p_value(judgments)
    else:
        found |= {"sd": float(np.std(rates, ddof=1)), "lowest": min(rates), "highest": max(rates)}
        points = [[_halves(judgments)] for judgments in rows.values()]
        _, low, high, p_value = estimate(*_arrays(points), most=4)
    return found | {"ci_low": low, "ci_high": high, "p_value": p_value}


def advantage(points, most=1):
    """Return matches, advantage, its interval and p_value of one run over another, as comparisons.advantage.

    points: for each seed of the one run a list with, for each seed of the other, {(question_id, turn): points
    (int)}; most: the most points of a match, as of comparisons.advantage.
    """
    number = sum(len(match) for row in points for match in row)
    if any(not match for row in points for match in row):
        return {"matches": number, "advantage": None, "ci_low": None, "ci_high": None, "p_value": 1.0}
    scaled = [
        [{key: 0.5 + value / (2 * most) for key, value in match.items()} for match in row] for row in points
    ]
    mean, low, high, p_value = estimate(*_arrays(scaled), most=4 * most * most)
    mean, low, high = (most * (value - 0.5) for value in (mean, low, high))
    return {"matches": number, "advantage": mean, "ci_low": low, "ci_high": high, "p_value": p_value}


def estimate(sums, counts, most):
    """Return the mean of values from 0 to 1, its 95 % interval (low, high), and p that the mean is one half.

    sums, counts: arrays [seeds of one run, seeds of another, questions]; most: as of winrate's intervals.
    """
    totals = counts.sum(axis=2, keepdims=True)
    seeds, others, questions = sums.shape
    mean = float((sums / totals).sum() / (seeds * others))
    variance, freedom = _variance((sums - mean * counts) / totals / (seeds * others))
    binomial = mean * (1 - mean)
    # Without any variance, and in few questions, as winrate's intervals of policies without repetitions.
    effective = questions
    if variance > 1e-12:
        effective = min(binomial / variance, most * questions * max(seeds, others))
    else:
        freedom = questions
    freedom = max(min(freedom, effective - 1, questions - 1), 1)
    low, high = winrate.wilson(mean, effective, winrate.student(freedom))
    # Wilson's interval has the rates p whose test |mean - p| / √(p (1 - p) / effective) does not refuse.
    return mean, low, high, winrate.tail(abs(mean - 0.5) / math.sqrt(0.25 / effective), freedom)


def _variance(rests):
    """Return the variance of a mean, and its degrees of freedom.

    rests: array [seeds of one run, seeds of another, questions] of what each adds to the mean's error.
    """
    questions = rests.shape[2]
    of_questions = rests.sum(axis=(0, 1))
    variance = (of_questions**2).sum() * questions / max(questions - 1, 1)
    of_seeds, of_freedom = 0.0, 0.0
    for axis in (0, 1):
        seeds = rests.shape[axis]
        if seeds == 1:
            continue
        cells = rests.sum(axis=1 - axis)
        sums = cells.sum(axis=1)
        both = cells - sums[:, None] / questions - of_questions / seeds
        neither = (both**2).sum() * seeds * questions / ((seeds - 1) * max(questions - 1, 1))
        between = max((sums**2).sum() * seeds / (seeds - 1), neither)
        variance -= neither
        of_seeds += between
        of_freedom += between**2 / ((seeds - 1) * (questions - 1 if between == neither else 1) or 1)
    total = of_seeds + max(variance, 0.0)
    return total, total**2 / of_freedom if of_freedom > 0 else math.inf


def _halves(judgments):
    """Return {(question_id, turn): 1, 1/2 or 0} of the matches that count."""
    points = {"win": 1.0, "tie": 0.5, "loss": 0.0}
    outcomes = {(row["question_id"], row["turn"]): winrate.outcome(row) for row in judgments}
    return {match: points[result] for match, result in outcomes.items() if result != "error"}


def _arrays(points):
    """Return (sums, counts) by question: arrays [seeds, others, questions]; points: [[{match: value}]]."""
    questions = dict.fromkeys(question for row in points for match in row for question, _ in match)
    places = {question: place for place, question in enumerate(questions)}
    sums = np.zeros((len(points), len(points[0]), len(places)))
    counts = np.zeros_like(sums)
    for one, row in enumerate(points):
        for other, matches in enumerate(row):
            for (question, _), value in matches.items():
                sums[one, other, places[question]] += value
                counts[one, other, places[question]] += 1
    return sums, counts

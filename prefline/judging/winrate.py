"""Win rates of pairwise judgments, their intervals, and how much the verdicts follow the position.

A match is one (question, turn), judged in two games with the answers' positions swapped. As in FastChat's
show_result.py: a match is won if both games are, lost if both are, and a tie otherwise; a match with a game
in error does not count, and

    win_rate_adjusted = (wins + ties / 2) / (wins + ties + losses).

Judgments are dicts in FastChat's form; the rates are those of their model_1.
"""

import numpy as np

# Points of the first position less those of the second, in game 1 (model_1 first) and in game 2.
POINTS = {"model_1": 1, "tie": 0, "model_2": -1}
OUTCOMES = ("win", "tie", "loss", "error")
CONFIDENCE = 0.95


def outcome(judgment):
    """The outcome of a match for model_1: one of OUTCOMES."""
    games = (judgment["g1_winner"], judgment["g2_winner"])
    if "error" in games:
        return "error"
    if games == ("model_1", "model_1"):
        return "win"
    if games == ("model_2", "model_2"):
        return "loss"
    return "tie"


def of_model(judgments, model):
    """The judgments (list of dict) of a model's matches, seen from its side: it is model_1 in all of them."""
    turned = {"model_1": "model_2", "model_2": "model_1"}
    found = []
    for row in judgments:
        if row["model_1"] == model:
            found.append(row)
        elif row["model_2"] == model:
            names = {"model_1": model, "model_2": row["model_1"]}
            games = {game: turned.get(row[game], row[game]) for game in ("g1_winner", "g2_winner")}
            # Which answer stood first changes with the side: the games change places.
            found.append({**row, **names, "g1_winner": games["g2_winner"], "g2_winner": games["g1_winner"]})
    return found


def summary(judgments, bootstrap_samples, seed):
    """Counts, rates and the interval of win_rate_adjusted for some judgments: dict of plain numbers.

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
    low, high = interval(list(questions.values()), bootstrap_samples, seed)
    return counts | {
        "matches": counted,
        "win_rate": counts["win"] / counted if counted else None,
        "loss_rate": counts["loss"] / counted if counted else None,
        "win_rate_adjusted": adjusted(counts["win"], counts["tie"], counts["loss"]) if counted else None,
        "ci_low": low,
        "ci_high": high,
    }


def adjusted(win, tie, loss):
    """win_rate_adjusted of counts: numbers or arrays of them. A tie is half a win."""
    return (win + 0.5 * tie) / (win + tie + loss)


def interval(questions, bootstrap_samples, seed):
    """The 95 % interval (low, high) of win_rate_adjusted, or (None, None) without questions.

    questions: one (wins, ties, losses) for each question. A percentile bootstrap: the turns of a question
    share its first answer and are not independent, so whole questions are drawn with replacement. Where all
    questions ended alike, the interval is a point; a slice of ten questions is too small to trust its ends.
    """
    if len(questions) == 0:
        return None, None
    draws = resampled(len(questions), bootstrap_samples, seed)
    return interval_of(adjusted(*(draws @ np.asarray(questions, dtype=np.float64)).T))


def resampled(number, samples, seed):
    """How often each of `number` questions is drawn in each of `samples`: int64 [samples, number]."""
    return np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=samples)


def interval_of(draws):
    """The middle 95 % (low, high) of a statistic's bootstrap draws (array)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def p_value(judgments):
    """Two-sided p (float) of the sign-flip test that both models are equally good; 1 where no match counts.

    Under it, each question's wins less its losses are as likely as their negative, all its turns together:
    p is the share of all 2^n changes of signs whose sum over the questions is as far from 0 as this one, or
    farther. Counted, not drawn: the distribution of the sum is the product of the questions' own.
    """
    margins = {}
    for judgment in judgments:
        points = {"win": 1, "loss": -1}.get(outcome(judgment), 0)
        margins[judgment["question_id"]] = margins.get(judgment["question_id"], 0) + points
    steps = [abs(margin) for margin in margins.values() if margin]
    chances = np.ones(1)  # of the sums -k, …, k
    for step in steps:
        spread = np.zeros(len(chances) + 2 * step)
        spread[: len(chances)] += chances / 2
        spread[2 * step :] += chances / 2
        chances = spread
    sums = np.arange(len(chances)) - len(chances) // 2
    return min(1.0, float(chances[np.abs(sums) >= abs(sum(margins.values()))].sum()))


def position_bias_interval(judgments, bootstrap_samples, seed):
    """The 95 % interval (low, high) of biased_toward_first less biased_toward_second; (None, None) without.

    Questions are drawn whole, as for the win rate.
    """
    questions = {}
    for judgment in judgments:
        if outcome(judgment) != "error":
            lean = POINTS[judgment["g1_winner"]] - POINTS[judgment["g2_winner"]]
            counts = questions.setdefault(judgment["question_id"], [0, 0])
            counts[0] += (lean > 0) - (lean < 0)
            counts[1] += 1
    if not questions:
        return None, None
    draws = resampled(len(questions), bootstrap_samples, seed)
    leans, matches = (draws @ np.array(list(questions.values()), dtype=np.float64)).T
    return interval_of(leans / matches)


def position_bias(judgments):
    """Fractions of the matches without error: {consistency, biased_toward_first, biased_toward_second}.

    A consistent match has the same winner in both games. Any other favours the answer that stood first, or
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

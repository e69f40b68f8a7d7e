"""Measure how far two judges of the same matches agree."""

from prefline.judging.winrate import OUTCOMES, outcome


def agreement(judgments_1, judgments_2):
    """Return agreement of two judges on the matches that both decided: dict of plain numbers.

    matches: those that both decided (neither in error); share: of these with the same outcome for model_1;
    kappa: Cohen's, (share - expected) / (1 - expected), where expected is the share that two judges would
    reach by chance, each with its own shares of wins, ties and losses; opposite: share that one judge calls
    wins and the other losses. Without such matches share, kappa and opposite are None; kappa is also None if
    both judges give the same outcome to all.
    """
    second = {_match(row): outcome(row) for row in judgments_2}
    pairs = [(outcome(row), second[_match(row)]) for row in judgments_1 if _match(row) in second]
    pairs = [pair for pair in pairs if "error" not in pair]
    number = len(pairs)
    if not number:
        return {"matches": 0, "share": None, "kappa": None, "opposite": None}
    share = sum(first == other for first, other in pairs) / number
    expected = sum(
        sum(first == name for first, _ in pairs) * sum(other == name for _, other in pairs)
        for name in OUTCOMES
    )
    expected /= number**2
    return {
        "matches": number,
        "share": share,
        "kappa": (share - expected) / (1 - expected) if expected < 1 else None,
        "opposite": sum(set(pair) == {"win", "loss"} for pair in pairs) / number,
    }


def _match(row):
    return row["question_id"], row["turn"], row["model_1"], row["model_2"]

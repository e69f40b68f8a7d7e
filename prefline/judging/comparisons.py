"""Compare every two policies: who beats whom, by their games with each other or with the start policy.

Two policies that played the same questions against the start policy are compared question by question, which
takes the questions' difficulty out. Of six equal policies, some pair has p < 0.05 in one experiment of five:
p values are corrected for the number of comparisons (Holm 1979).

Repetitions of a run under other seeds are compared with others as one: the run (repetitions.py).
"""

from prefline import policies as naming
from prefline.judging import repetitions, winrate


def compare(policies, start, rows, pairs=()):
    """Return the comparisons (list of dict) of every two of `policies` and `start`, in their order.

    Repetitions of a run with seeds are one of the two, under the name of naming.subject_of.

    rows: {policy: its judgments against the start policy}; pairs: judgments of policies with each other.

    - policy, other, by: "games" with each other, or "start": the games of both with the start policy
    - matches: int, those that count, of both
    - advantage: the win rate of `policy` over `other` less one half; by start, the difference of their rates
      against it; ci_low, ci_high: its 95 % interval. All three are None without matches.
    - p_value: of the sign-flip test that both are equal; p_corrected: for the number of comparisons
    """
    subjects, found = naming.subjects([*policies, start]), []
    names = list(subjects)
    for number, policy in enumerate(names):
        for other in names[number + 1 :]:
            if max(len(subjects[policy]), len(subjects[other])) > 1:
                both = subjects[policy], [] if other == start else subjects[other]
                found.append({"policy": policy, "other": other, **_repeated(*both, rows, pairs)})
                continue
            policy_rows, other_rows = (rows.get(subjects[name][0]) for name in (policy, other))
            most = 1
            if other == start:
                by, points = "games", points_of(policy_rows)
            else:
                by, points = "games", _of_games(subjects[policy][0], subjects[other][0], pairs)
                if not points:
                    by, most = "start", 2
                    points = difference(points_of(policy_rows), points_of(other_rows))
            found.append({"policy": policy, "other": other, "by": by, **advantage(points, most)})
    for one, corrected in zip(found, holm([one["p_value"] for one in found]), strict=True):
        one["p_corrected"] = corrected
    return found


def _repeated(policies, others, rows, pairs):
    """Return the comparison of two runs' policies over their seeds, without names, as of `compare`.

    policies, others: names of the repetitions, or of a single policy; no `others`: the start policy.
    """
    if not others:
        return {"by": "games", **repetitions.advantage([[points_of(rows[one])] for one in policies])}
    if naming.run_of(policies[0]) == naming.run_of(others[0]):  # iterations of a run: its seeds are pairs
        later = {naming.chain_of(other): other for other in others}
        matched = [[(one, later[naming.chain_of(one)])] for one in policies if naming.chain_of(one) in later]
    else:
        matched = [[(one, other) for other in others] for one in policies]
    games = [[_of_games(one, other, pairs) for one, other in row] for row in matched]
    if all(match for row in games for match in row):
        return {"by": "games", **repetitions.advantage(games)}
    points = {name: points_of(rows[name]) for name in (*policies, *others)}
    differences = [[difference(points[one], points[other]) for one, other in row] for row in matched]
    return {"by": "start", **repetitions.advantage(differences, most=2)}


def _of_games(policy, other, pairs):
    """Return `points_of` the games of a policy with another."""
    games = [row for row in pairs if {row["model_1"], row["model_2"]} == {policy, other}]
    return points_of(winrate.of_model(games, policy))


def of_ratings(rated, lowest, highest):
    """Return the comparisons (list of dict) of every two policies that a judge rated, by question.

    rated: {policy: {(question_id, turn): rating}}, without errors; lowest, highest: of the scale.

    - policy, other; ratings: int, the turns on which both have one
    - difference: the mean rating of `policy` less that of `other`; ci_low, ci_high: its 95 % interval
    - p_value and p_corrected, as in `compare`
    """
    names, found = list(rated), []
    for number, policy in enumerate(names):
        for other in names[number + 1 :]:
            questions = {}
            for (question, _), value in difference(rated[policy], rated[other]).items():
                questions.setdefault(question, []).append(value)
            values = [value for some in questions.values() for value in some]
            one = {"ratings": len(values), "difference": None, "ci_low": None, "ci_high": None}
            if values:
                width = highest - lowest
                low, high = winrate.mean_interval(list(questions.values()), -width, width)
                one |= {"difference": sum(values) / len(values), "ci_low": low, "ci_high": high}
            hundredths = [round(100 * sum(some)) for some in questions.values()]
            found.append({"policy": policy, "other": other, **one, "p_value": winrate.flip_test(hundredths)})
    for one, corrected in zip(found, holm([one["p_value"] for one in found]), strict=True):
        one["p_corrected"] = corrected
    return found


def of_policy(policy, found):
    """Return the comparisons of one policy with matches, as {other, advantage, low, high, p_corrected}."""
    own = []
    for one in found:
        if one["advantage"] is None or policy not in (one["policy"], one["other"]):
            continue
        first = policy == one["policy"]
        low, high = (one["ci_low"], one["ci_high"]) if first else (-one["ci_high"], -one["ci_low"])
        own.append(
            {
                "other": one["other"] if first else one["policy"],
                "advantage": one["advantage"] if first else -one["advantage"],
                "low": low,
                "high": high,
                "p_corrected": one["p_corrected"],
            }
        )
    return own


def points_of(judgments):
    """Return {(question_id, turn): 1, 0 or -1} for wins, ties and losses of the matches that count."""
    points = {"win": 1, "tie": 0, "loss": -1}
    outcomes = {(row["question_id"], row["turn"]): winrate.outcome(row) for row in judgments}
    return {match: points[result] for match, result in outcomes.items() if result != "error"}


def difference(points, others):
    """Return {match: points less others' points} of the matches that count in both."""
    return {match: points[match] - others[match] for match in points if match in others}


def advantage(points, most=1):
    """Return matches, advantage, its interval and p_value for {(question_id, turn): points (int)}.

    most: the most points of a match: 1 in games with each other, 2 in the difference of two such.
    """
    questions = {}
    for (question, _), value in points.items():
        questions.setdefault(question, []).append(value)
    found = {"matches": len(points), "advantage": None, "ci_low": None, "ci_high": None}
    if points:
        if most == 1:
            counts = [[values.count(one) for one in (1, 0, -1)] for values in questions.values()]
            low, high = (end - 0.5 for end in winrate.interval(counts))
        else:
            low, high = (end / 2 for end in winrate.mean_interval(list(questions.values()), -most, most))
        found |= {"advantage": sum(points.values()) / 2 / len(points), "ci_low": low, "ci_high": high}
    return found | {"p_value": winrate.flip_test([sum(values) for values in questions.values()])}


def holm(values):
    """Return p values (list of float), corrected for their number by Holm's step-down method."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return corrected

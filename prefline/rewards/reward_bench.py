"""Questions in RewardBench 2's form, and its scores (Malik et al. 2025, arXiv 2506.01937).

reads  prompt, chosen, rejected (lists of answers), subset; id, which the subset Ties needs
"""

import math
import re
import statistics

from prefline.data import benchmark_results
from prefline.errors import InputError
from prefline.text import chat

VERSION = "v2 as in rewardbench 0.1.4"
TIES = "ties"
PAIRED = re.compile(r"(ref|tied):(\d+)")


def has_ties(subset):
    """Return whether a subset (str) is the one with several right answers to a question."""
    return subset.lower() == TIES


def read(path):
    """Return the questions of a file: list of {where, id, subset, messages, chosen, rejected}.

    Raises InputError for a file that is not there, and for a question that cannot be scored.
    """
    benchmark_results.check_there(path, "reward_bench")
    questions, seen = [], set()
    for number, (where, row) in enumerate(benchmark_results.read_list(path)):
        subset = row.get("subset")
        if not isinstance(subset, str) or not subset.strip():
            raise InputError(f"{where}: has no name of a subset as 'subset'")
        for key in ("chosen", "rejected"):
            texts = row.get(key)
            if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
                raise InputError(f"{where}: {key!r} is a list of answers, with one at least")
        if "prompt" not in row:
            raise InputError(f"{where}: has no 'prompt'")
        name = str(row.get("id", number))
        if has_ties(subset) and not PAIRED.fullmatch(name):
            raise InputError(
                f"{where}: the id {name!r} of a question in the subset {subset} is not ref:NUMBER or "
                "tied:NUMBER, as in RewardBench 2; correct it, or name the subset otherwise"
            )
        if not has_ties(subset) and len(row["chosen"]) > 1:
            raise InputError(
                f"{where}: has {len(row['chosen'])} chosen answers; only the subset Ties takes several, so "
                "split the question"
            )
        if (subset, name) in seen:
            raise InputError(f"{where}: the id {name!r} comes twice in the subset {subset}; keep one row")
        seen.add((subset, name))
        about = {"where": f"{where} (id {name})", "id": name, "subset": subset}
        messages = chat.as_messages(row["prompt"], where)
        questions.append(about | {"messages": messages, "chosen": row["chosen"], "rejected": row["rejected"]})
    if not questions:
        raise InputError(f"{path}: holds no question")
    return questions


def scored(questions, scores):
    """Return {id, subset, chosen, rejected, result} of each question, with scores in place of its answers.

    scores: list of float of all answers in order, a question's chosen ones first. result: the chosen answer's
    share of the highest score; None in the subset Ties, which is scored as a whole.
    """
    rows, rest = [], iter(scores)
    for question in questions:
        chosen, rejected = ([next(rest) for _ in question[key]] for key in ("chosen", "rejected"))
        best = max(chosen + rejected)
        result = (chosen[0] == best) / (chosen + rejected).count(best)
        rows.append(
            {
                "id": question["id"],
                "subset": question["subset"],
                "chosen": chosen,
                "rejected": rejected,
                "result": None if has_ties(question["subset"]) else result,
            }
        )
    return rows


def ties_score(questions):
    """Return the score (float) of the subset Ties. questions: its rows, as `scored` gives them.

    Questions of one number that lack their counterpart, or have one right answer, count in the first two
    parts only.
    """
    gaps = {"ref": {}, "tied": {}}  # between the worst right and the best wrong answer
    spreads = {}  # of the right answers
    for question in questions:
        kind, number = PAIRED.fullmatch(question["id"]).groups()
        right = question["chosen"]
        gaps[kind][number] = min(right) - max(question["rejected"])
        if kind == "tied" and len(right) > 1:
            spreads[number] = max(right) - min(right)
    both = [
        (gaps["tied"][number], min(gaps["ref"][number], gaps["tied"][number]), spread)
        for number, spread in spreads.items()
        if number in gaps["ref"]
    ]
    return (
        0.3 * _mean(gap > 0 for gap in gaps["tied"].values())
        + 0.3 * _mean(gap > 0 for gap in gaps["ref"].values())
        + 0.2 * _mean(gap > spread for gap, _, spread in both)
        + 0.2 * _mean(smaller > spread for _, smaller, spread in both)
        + 0.01 * _mean(math.tanh(smaller / spread - 1) for _, smaller, spread in both if spread > 0)
    )


def _mean(values):
    values = list(values)
    return statistics.fmean(values) if values else 0.0

"""Compute every policy's win rate against the start policy from the pairwise judgments.

The result has for each policy:

- wins, ties, losses, errors, win_rate, loss_rate, and win_rate_adjusted with a 95 % interval, overall, by
  category and by turn (definitions: prefline/judging/winrate.py)
- p_value, of the sign-flip test that the policy is as good as the start policy
- read_otherwise_by_fastchat: games whose verdict FastChat reads otherwise (prefline/text/verdicts.py)
- how far the verdicts follow the answers' positions
- because judges like long answers: the mean words in an answer, the policy's and the start policy's, how far
  the verdicts follow length, and the win rate at equal length (prefline/judging/verbosity.py)

The same by --other-judges, with how far each agrees with the main one (prefline/judging/agreement.py).
`repeated` has, for each iteration of a run with `seeds`, the mean of the seeds' rates, its interval over
questions and seeds, and their spread (prefline/judging/repetitions.py). `comparisons` has who beats whom, of
every two policies (prefline/judging/comparisons.py). With --pairs, the matches of the trained policies with
each other, also each policy's rate over all its matches, FastChat's pairwise-all. The CSV has the rates, one
row for each judge, policy and slice, the judges' agreement and the comparisons.

    python -m scripts.mt_bench.compute_winrate --questions data/mt_bench/question.jsonl \\
        --judgments results/mt_bench/judgments/reference/dpo-1.jsonl \\
        --answers results/mt_bench/answers/dpo-1.jsonl --policies dpo-1 \\
        --start sft --start-answers results/mt_bench/answers/sft.jsonl --bootstrap-samples 10000 --seed 1 \\
        --out results/winrate.json --csv results/winrate.csv
"""

from pathlib import Path

from prefline import errors, files, seeds
from prefline import policies as naming
from prefline.config import section
from prefline.errors import InputError
from prefline.judging import comparisons, fastchat, repetitions, verbosity, winrate
from prefline.judging.agreement import agreement
from prefline.text import verdicts

COLUMNS = [
    "policy", "start", "judge", "slice", "value", "matches", "win", "tie", "loss", "error",
    "win_rate", "loss_rate", "win_rate_adjusted", "advantage", "ci_low", "ci_high", "p_value", "p_corrected",
    "consistency", "biased_toward_first", "biased_toward_second", "agreement", "kappa", "seeds", "sd",
]  # fmt: skip
# Numbers of a policy in `dvc metrics show`.
METRICS = ("win_rate_adjusted", "ci_low", "ci_high", "matches")
METRICS_OF_SEEDS = (*METRICS, "sd")


def check_complete(path, judgments, questions, policy, start):
    """Raise InputError unless `judgments` judge `policy` exactly once on each turn of all questions."""
    wanted = fastchat.turns_of(questions)
    for where, judgment in judgments:
        models = (judgment["model_1"], judgment["model_2"])
        if models != (policy, start):
            raise InputError(f"{where}: judges {models[0]} against {models[1]}, not {policy} against {start}")
        if judgment["judge"][0] != judgments[0][1]["judge"][0]:
            raise InputError(f"{where}: another judge than in the lines before; give each judge its own file")
        turn = (judgment["question_id"], judgment["turn"])
        if turn not in wanted:
            raise InputError(f"{where}: question {turn[0]}, turn {turn[1]} is not among the questions")
        wanted.remove(turn)
    if wanted:
        name, turn = min(wanted, key=str)
        raise InputError(
            f"{path}: {len(wanted)} turns are not judged, such as question {name}, turn {turn}; "
            "delete the file and let its rule make it again"
        )


def check_lost(judgments, questions, policy, most):
    """Raise InputError where more than the share `most` of the matches, or of a category's, have no verdict.

    Lost verdicts are no random sample: they come from hard questions, long answers and refusals.
    """
    judge = judgments[0]["judge"][0]
    parts = [
        ("" if kind == "overall" else f" in the {kind} {name}", rows)
        for kind, members in slices(judgments, questions).items()
        for name, rows in members.items()
    ]
    for where, rows in parts:
        lost = sum(winrate.outcome(row) == "error" for row in rows)
        if lost > most * len(rows):
            raise InputError(
                f"mt_bench: the judge {judge} gave no verdict in {lost} of {len(rows)} matches of "
                f"{policy}{where}, more than the share mt_bench.max_lost ({most:g}), and the rate is biased. "
                "Its log has the reasons; raise the judge's max_tokens, take another judge, or raise max_lost"
            )


def read_otherwise(judgments):
    """Return the number of games (int) whose verdict the readings `last` and `fastchat` differ on."""
    return sum(
        verdicts.verdict(row[words]) != verdicts.fastchat_verdict(row[words])
        for row in judgments
        for words in ("g1_judgment", "g2_judgment")
    )


def slices(judgments, questions):
    """Return {"overall": {"all": judgments}, "category": {name: …}, "turn": {"1": …}} in question order."""
    categories = {question["question_id"]: question["category"] for question in questions}
    found = {"overall": {"all": judgments}, "category": {}, "turn": {}}
    for category in dict.fromkeys(categories.values()):
        found["category"][category] = [row for row in judgments if categories[row["question_id"]] == category]
    for turn in sorted({row["turn"] for row in judgments}):
        found["turn"][str(turn)] = [row for row in judgments if row["turn"] == turn]
    return found


def rates(judgments, questions):
    """Return {"overall": summary, "category": {name: summary}, "turn": {name: summary}} of one policy."""
    found = {}
    for kind, members in slices(judgments, questions).items():
        found[kind] = {value: winrate.summary(rows) for value, rows in members.items()}
    return {"overall": found["overall"]["all"], "category": found["category"], "turn": found["turn"]}


def over_seeds(rows, questions):
    """Return {subject: what `rates` tells, over the seeds of a run}. rows: {policy: its judgments}."""
    found = {}
    for name, policies in naming.repeated(rows).items():
        sliced = {policy: slices(rows[policy], questions) for policy in policies}
        found[name] = {
            kind: {
                value: repetitions.summary({policy: sliced[policy][kind][value] for policy in policies})
                for value in members
            }
            for kind, members in sliced[policies[0]].items()
        }
        found[name]["overall"] = found[name]["overall"]["all"]
    return found


def texts_of(answers, questions):
    """Return {(question_id, turn): the answer (str)} of all turns of `questions`."""
    return {
        (question["question_id"], number): turn
        for question in questions
        for number, turn in enumerate(answers[question["question_id"]][: len(question["turns"])], 1)
    }


def mean_words(texts):
    """Return the mean number of words (float) in the texts of `texts_of`."""
    return sum(len(text.split()) for text in texts.values()) / len(texts)


def judged(judgments, questions, policy, texts, start_texts, bootstrap_samples, seed):
    """Return all that is told of one policy by one judge (dict).

    texts, start_texts: `texts_of` the policy's and the start policy's answers.
    """
    lengths, start_lengths = ({key: len(text) for key, text in of.items()} for of in (texts, start_texts))
    low, high = winrate.position_bias_interval(judgments)
    bias = winrate.position_bias(judgments)
    return rates(judgments, questions) | {
        "p_value": winrate.p_value(judgments),
        "read_otherwise_by_fastchat": read_otherwise(judgments),
        "position_bias": bias | {"net_low": low, "net_high": high},
        "mean_words": {"policy": mean_words(texts), "start": mean_words(start_texts)},
        "length": verbosity.summary(
            judgments, lengths, start_lengths, bootstrap_samples, seeds.derive(seed, "length", policy)
        ),
    }


def table(result):
    """Return the rates of `result` (the JSON's contents) as rows of COLUMNS, in the JSON's order."""
    rows = []
    for judge, told in {result["judge"]: result, **result["other_judges"]}.items():
        for policy, found in {**told["win_rates"], **told["repeated"]}.items():
            repeated = {"seeds": len(found["overall"]["policies"])} if policy in told["repeated"] else {}
            parts = [("overall", "all", found["overall"] | found.get("position_bias", {}) | repeated)]
            parts += [("category", name, found["category"][name]) for name in result["categories"]]
            parts += [("turn", name, summary) for name, summary in sorted(found["turn"].items())]
            shared = {"policy": policy, "start": result["start"], "judge": judge}
            rows += [{**shared, "slice": kind, "value": value, **summary} for kind, value, summary in parts]
    for name, other in result["other_judges"].items():
        agreed = other["agreement"]
        rows.append(
            {
                **{"judge": result["judge"], "slice": "agreement", "value": name},
                **{"matches": agreed["matches"], "agreement": agreed["share"], "kappa": agreed["kappa"]},
            }
        )
    for policy, summary in result["all_pairs"].items():
        shared = {"policy": policy, "start": "", "judge": result["judge"]}
        rows.append({**shared, "slice": "all_pairs", "value": "all", **summary})
    for one in result["comparisons"]:
        rows.append(
            {**one, "judge": result["judge"], "slice": f"advantage_by_{one['by']}", "value": one["other"]}
        )
    return rows


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--questions", required=True, help="questions in FastChat's form (jsonl)")
    parser.add_argument(
        "--policies", nargs="+", required=True, help="the policies' names, in the order to show"
    )
    parser.add_argument(
        "--judgments", nargs="+", required=True, help="their judgments, in that order (jsonl)"
    )
    parser.add_argument("--other-judges", nargs="*", required=True, help="names of judges to compare with")
    parser.add_argument(
        "--other-judgments", nargs="*", required=True, help="theirs: all of the first, of the second, …"
    )
    parser.add_argument(
        "--pairs",
        nargs="*",
        required=True,
        help="the main judge's of trained policies with each other (jsonl)",
    )
    parser.add_argument("--answers", nargs="+", required=True, help="their answers, in that order (jsonl)")
    parser.add_argument("--start", required=True, help="name of the policy that all were compared with")
    parser.add_argument("--start-answers", required=True, help="its answers (jsonl)")
    section.add(parser, "mt_bench", "max_lost", "bootstrap_samples")
    section.add(parser, "seed")
    parser.add_argument("--out", required=True, help="win rates (json)")
    parser.add_argument("--csv", required=True, help="the same as a tidy table")
    parser.add_argument("--metrics", help="folder for each policy's rate alone, which DVC shows (json)")
    args = parser.parse_args(argv)
    if not len(args.policies) == len(args.judgments) == len(args.answers):
        parser.error("--policies, --judgments and --answers go together: as many of each")

    if len(args.other_judgments) != len(args.other_judges) * len(args.policies):
        parser.error("--other-judgments: one for each of --other-judges and each of --policies")

    questions = fastchat.read_questions(args.questions)
    texts = {
        policy: texts_of(fastchat.read_answers(path, questions), questions)
        for policy, path in zip(
            [*args.policies, args.start], [*args.answers, args.start_answers], strict=True
        )
    }

    def read(paths):
        """Return (judge, {policy: its judgments}, {policy: what is told of it})."""
        rows, judge = {}, None
        for policy, path in zip(args.policies, paths, strict=True):
            judgments = fastchat.read_judgments(path)
            check_complete(path, judgments, questions, policy, args.start)
            rows[policy] = [row for _, row in judgments]
            check_lost(rows[policy], questions, policy, args.max_lost)
            found = rows[policy][0]["judge"][0]
            if judge not in (None, found):
                raise InputError(
                    f"{path}: not judged by {judge}, as other policies are; use one judge for all"
                )
            judge = found
        told = {
            policy: judged(
                rows[policy],
                questions,
                policy,
                texts[policy],
                texts[args.start],
                args.bootstrap_samples,
                args.seed,
            )
            for policy in args.policies
        }
        return judge, rows, told

    judge, main_rows, win_rates = read(args.judgments)
    for policy in args.policies:
        print(sentence(policy, args.start, win_rates[policy]["overall"]))
    repeated = over_seeds(main_rows, questions)
    for name, found in repeated.items():
        print(sentence(f"{name}, {len(found['overall']['policies'])} seeds,", args.start, found["overall"]))
    others = {}
    for number, name in enumerate(args.other_judges):
        first = number * len(args.policies)
        _, rows, told = read(args.other_judgments[first : first + len(args.policies)])
        agreed = agreement(all_of(main_rows), all_of(rows))
        others[name] = {"win_rates": told, "repeated": over_seeds(rows, questions), "agreement": agreed}
        if agreed["share"] is not None:
            print(f"{name} agrees with {judge} in {agreed['share']:.1%} of {agreed['matches']} matches")
    pairs = [row for path in args.pairs for _, row in fastchat.read_judgments(path)]
    compared = comparisons.compare(args.policies, args.start, main_rows, pairs)
    for one in compared:
        if one["p_corrected"] < 1 - winrate.CONFIDENCE:
            print(beaten(one, len(compared)))
    result = {
        "judge": judge,
        "other_judges": others,
        "all_pairs": all_pairs(args, main_rows, pairs),
        "comparisons": compared,
        "start": args.start,
        "policies": args.policies,
        "categories": list(dict.fromkeys(question["category"] for question in questions)),
        "questions": len(questions),
        "confidence": winrate.CONFIDENCE,
        "bootstrap_samples": args.bootstrap_samples,
        "win_rates": win_rates,
        "repeated": repeated,
    }
    files.write_json(args.out, result)
    files.write_csv(args.csv, COLUMNS, table(result))
    for policy in args.policies if args.metrics else ():
        overall = win_rates[policy]["overall"]
        files.write_json(Path(args.metrics, f"{policy}.json"), {key: overall[key] for key in METRICS})
    for name, found in repeated.items() if args.metrics else ():
        overall = found["overall"]
        files.write_json(Path(args.metrics, f"{name}.json"), {key: overall[key] for key in METRICS_OF_SEEDS})


def all_of(rows):
    """Return the judgments of all policies, {policy: judgments}, in one list."""
    return [row for judgments in rows.values() for row in judgments]


def all_pairs(args, rows, pairs):
    """Return {policy: summary} over each policy's matches with all others; {} without `pairs` (judgments)."""
    if not pairs:
        return {}
    matches = all_of(rows) + pairs
    return {
        policy: winrate.summary(winrate.of_model(matches, policy)) for policy in [*args.policies, args.start]
    }


def beaten(one, number):
    """Return one line for the log about a comparison, of `number`, in which one policy beats the other."""
    better, worse = (one["policy"], one["other"])[:: 1 if one["advantage"] > 0 else -1]
    return (
        f"{better} beats {worse}: by {abs(one['advantage']):.4f} of the win rate, p "
        f"{one['p_corrected']:.2g}, corrected for {number} comparisons"
    )


def sentence(policy, start, overall):
    """Return one line for the log about a policy's overall rate."""
    counts = ", ".join(f"{name} {overall[name]}" for name in winrate.OUTCOMES[:3])
    counts += f"; {winrate.counted(overall)} matches count"
    if overall["win_rate_adjusted"] is None:
        return f"{policy} against {start}: no match counts ({counts})"
    return (
        f"{policy} against {start}: win_rate_adjusted {overall['win_rate_adjusted']:.4f} "
        f"[{overall['ci_low']:.4f}, {overall['ci_high']:.4f}] ({counts})"
    )


if __name__ == "__main__":
    errors.run(main)

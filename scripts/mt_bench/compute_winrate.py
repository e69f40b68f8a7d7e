"""Compute every policy's win rate against the start policy from the pairwise judgments.

Per policy: wins, ties, losses and errors, win_rate, loss_rate and win_rate_adjusted (definitions in
prefline/judging/winrate.py) with a 95 % interval, overall, by category and by turn; p_value, of the sign-flip
test that it is as good as the start policy; how far the verdicts follow the answers' positions; and, because
judges like long answers, the mean length of an answer in words, its own and the start policy's, how far the
verdicts follow it, and the win rate at equal length (prefline/judging/verbosity.py).

The same by --other-judges, with how far each agrees with the main one (prefline/judging/agreement.py). With
--pairs, the matches of the trained policies with each other, also each policy's rate over all its matches,
FastChat's pairwise-all. The CSV has the rates, one row for each judge, policy and slice.

    python -m scripts.mt_bench.compute_winrate --questions data/mt_bench/question.jsonl \\
        --judgments results/mt_bench/judgments/reference/dpo-1.jsonl \\
        --answers results/mt_bench/answers/dpo-1.jsonl --policies dpo-1 \\
        --start sft --start-answers results/mt_bench/answers/sft.jsonl --bootstrap-samples 10000 --seed 1 \\
        --out results/winrate.json --csv results/winrate.csv
"""

from prefline import errors, files, seeds
from prefline.config import section
from prefline.errors import InputError
from prefline.judging import fastchat, verbosity, winrate
from prefline.judging.agreement import agreement

COLUMNS = [
    "policy", "start", "judge", "slice", "value", "matches", "win", "tie", "loss", "error",
    "win_rate", "loss_rate", "win_rate_adjusted", "ci_low", "ci_high",
]  # fmt: skip


def check_complete(path, judgments, questions, policy, start):
    """InputError unless `judgments` (of read_judgments) judge `policy` once on each turn of all questions."""
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


def slices(judgments, questions):
    """{"overall": {"all": judgments}, "category": {name: …}, "turn": {"1": …}} in the questions' order."""
    categories = {question["question_id"]: question["category"] for question in questions}
    found = {"overall": {"all": judgments}, "category": {}, "turn": {}}
    for category in dict.fromkeys(categories.values()):
        found["category"][category] = [row for row in judgments if categories[row["question_id"]] == category]
    for turn in sorted({row["turn"] for row in judgments}):
        found["turn"][str(turn)] = [row for row in judgments if row["turn"] == turn]
    return found


def rates(judgments, questions, policy, bootstrap_samples, seed):
    """{"overall": summary, "category": {name: summary}, "turn": {name: summary}} of one policy."""
    found = {}
    for kind, members in slices(judgments, questions).items():
        found[kind] = {
            value: winrate.summary(
                rows, bootstrap_samples, seeds.derive(seed, "bootstrap", policy, kind, value)
            )
            for value, rows in members.items()
        }
    return {"overall": found["overall"]["all"], "category": found["category"], "turn": found["turn"]}


def lengths(answers, questions):
    """{(question_id, turn): words of the answer (int)} of all turns of `questions`."""
    return {
        (question["question_id"], number): len(turn.split())
        for question in questions
        for number, turn in enumerate(answers[question["question_id"]][: len(question["turns"])], 1)
    }


def mean(numbers):
    return sum(numbers) / len(numbers)


def judged(judgments, questions, policy, words, start_words, bootstrap_samples, seed):
    """All that is told of one policy by one judge (dict).

    words, start_words: `lengths` of the policy's and the start policy's answers.
    """
    draw = seeds.derive(seed, "bias", policy)
    low, high = winrate.position_bias_interval(judgments, bootstrap_samples, draw)
    bias = winrate.position_bias(judgments)
    return rates(judgments, questions, policy, bootstrap_samples, seed) | {
        "p_value": winrate.p_value(judgments),
        "position_bias": bias | {"net_low": low, "net_high": high},
        "mean_words": {"policy": mean(words.values()), "start": mean(start_words.values())},
        "length": verbosity.summary(
            judgments, words, start_words, bootstrap_samples, seeds.derive(seed, "length", policy)
        ),
    }


def table(result):
    """The rates of `result` (what the JSON holds) as rows of COLUMNS, policies and categories in order."""
    rows = []
    judges = {result["judge"]: result["win_rates"]}
    judges |= {name: other["win_rates"] for name, other in result["other_judges"].items()}
    for judge, win_rates in judges.items():
        for policy in result["policies"]:
            found = win_rates[policy]
            parts = [("overall", "all", found["overall"])]
            parts += [("category", name, found["category"][name]) for name in result["categories"]]
            parts += [("turn", name, summary) for name, summary in sorted(found["turn"].items())]
            shared = {"policy": policy, "start": result["start"], "judge": judge}
            rows += [{**shared, "slice": kind, "value": value, **summary} for kind, value, summary in parts]
    for policy, summary in result["all_pairs"].items():
        shared = {"policy": policy, "start": "", "judge": result["judge"]}
        rows.append({**shared, "slice": "all_pairs", "value": "all", **summary})
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
    section.add(parser, "mt_bench", "bootstrap_samples")
    section.add(parser, "seed")
    parser.add_argument("--out", required=True, help="win rates (json)")
    parser.add_argument("--csv", required=True, help="the same as a tidy table")
    args = parser.parse_args(argv)
    if not len(args.policies) == len(args.judgments) == len(args.answers):
        parser.error("--policies, --judgments and --answers go together: as many of each")

    if len(args.other_judgments) != len(args.other_judges) * len(args.policies):
        parser.error("--other-judgments: one for each of --other-judges and each of --policies")

    questions = fastchat.read_questions(args.questions)
    words = {
        policy: lengths(fastchat.read_answers(path, questions), questions)
        for policy, path in zip(
            [*args.policies, args.start], [*args.answers, args.start_answers], strict=True
        )
    }

    def read(paths):
        """(judge, {policy: its judgments}, {policy: what is told of it})."""
        rows, judge = {}, None
        for policy, path in zip(args.policies, paths, strict=True):
            judgments = fastchat.read_judgments(path)
            check_complete(path, judgments, questions, policy, args.start)
            rows[policy] = [row for _, row in judgments]
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
                words[policy],
                words[args.start],
                args.bootstrap_samples,
                args.seed,
            )
            for policy in args.policies
        }
        return judge, rows, told

    judge, main_rows, win_rates = read(args.judgments)
    for policy in args.policies:
        print(sentence(policy, args.start, win_rates[policy]["overall"]))
    others = {}
    for number, name in enumerate(args.other_judges):
        first = number * len(args.policies)
        _, rows, told = read(args.other_judgments[first : first + len(args.policies)])
        agreed = agreement(all_of(main_rows), all_of(rows))
        others[name] = {"win_rates": told, "agreement": agreed}
        if agreed["share"] is not None:
            print(f"{name} agrees with {judge} in {agreed['share']:.1%} of {agreed['matches']} matches")
    result = {
        "judge": judge,
        "other_judges": others,
        "all_pairs": all_pairs(args, main_rows),
        "start": args.start,
        "policies": args.policies,
        "categories": list(dict.fromkeys(question["category"] for question in questions)),
        "questions": len(questions),
        "confidence": winrate.CONFIDENCE,
        "bootstrap_samples": args.bootstrap_samples,
        "win_rates": win_rates,
    }
    files.write_json(args.out, result)
    files.write_csv(args.csv, COLUMNS, table(result))


def all_of(rows):
    """The judgments of all policies, {policy: judgments}, in one list."""
    return [row for judgments in rows.values() for row in judgments]


def all_pairs(args, rows):
    """{policy: summary} over each policy's matches with all others; {} without --pairs."""
    if not args.pairs:
        return {}
    matches = all_of(rows) + [row for path in args.pairs for _, row in fastchat.read_judgments(path)]
    return {
        policy: winrate.summary(
            winrate.of_model(matches, policy),
            args.bootstrap_samples,
            seeds.derive(args.seed, "all_pairs", policy),
        )
        for policy in [*args.policies, args.start]
    }


def sentence(policy, start, overall):
    """One line for the log about a policy's overall rate."""
    counts = ", ".join(f"{name} {overall[name]}" for name in winrate.OUTCOMES)
    if overall["win_rate_adjusted"] is None:
        return f"{policy} against {start}: no match counts ({counts})"
    return (
        f"{policy} against {start}: win_rate_adjusted {overall['win_rate_adjusted']:.4f} "
        f"[{overall['ci_low']:.4f}, {overall['ci_high']:.4f}] ({counts})"
    )


if __name__ == "__main__":
    errors.run(main)

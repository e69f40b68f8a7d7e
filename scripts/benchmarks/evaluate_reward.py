"""Evaluate a reward model on data in RewardBench 2's form: does it score right answers above wrong ones?

The model scores each answer as it scores completions for ranking. A model that compares two answers holds the
same tournament as there, among the answers to a prompt. As in RewardBench 2, a question counts if its chosen
answer has the highest score, and as 1/n if n answers share it. The average is that of the subsets.

The subset Ties has questions with several right answers (id tied:7), each beside one with a single right
answer (ref:7). A question's gap is the score of its worst right answer minus that of its best wrong one. The
spread of a tied question is that of its right answers. Ties/score is the weighted sum of

    0.3   the share of tied questions with a gap above 0
    0.3   the share of ref questions with a gap above 0
    0.2   the share of tied questions whose gap exceeds their spread
    0.2   the same, with the smaller gap of the two questions of a number
    0.01  the mean of tanh(that smaller gap / spread - 1)

    python -m scripts.benchmarks.evaluate_reward --data reward-bench-2.jsonl --benchmark reward_bench \\
        --reward reward_model --kind classifier --model results/models/reward_model --head-weights null \\
        --opponents 0 --dtype bfloat16 --batch-tokens 16384 --seed 1 --journal work/journal \\
        --scores results/benchmarks/reward_bench/scores/reward_model.jsonl \\
        --out results/benchmarks/reward_bench/reward_model.json

    writes  SUBSET/accuracy, Ties/score and average, in parts of one; all scores beside them
"""

import math
import statistics

from prefline import errors, files, rewards
from prefline.config import section
from prefline.data import benchmark_results
from prefline.provenance import journal
from prefline.rewards import Dialogue, reward_bench, shard, tournament


def score(args, dialogues, numbers):
    """Return the rewards (list of float) of the answers `dialogues`, as ranking computes them.

    args: the flags; numbers: of each answer's question (list of int).
    """
    settings = {"dtype": args.dtype}
    if args.kind == "classifier":
        settings["head_weights"] = args.head_weights
    context = journal.context(
        "scripts/benchmarks/evaluate_reward.py", args.model, rewards.PACKAGES, kind=args.kind, **settings
    )

    def batches(missing):
        from prefline.rewards import pairwise, scorers

        load = scorers.load if args.kind == "classifier" else pairwise.load
        yield from load(args.model, args.batch_tokens, **settings).batches(missing)

    if args.kind == "classifier":
        scored = shard.score(args.journal, context, args.model, dialogues, batches)
    else:
        scored = tournament.rewards(
            dialogues,
            numbers,
            list(range(len(dialogues))),
            args.opponents,
            args.seed,
            lambda comparisons: shard.compare(args.journal, context, args.model, comparisons, batches),
        )
    return [reward for reward, _ in scored]


def metrics(questions, settings):
    """Return rows for the table, of questions (dicts of `reward_bench.scored`). settings: dict."""
    rows = []
    for subset in dict.fromkeys(question["subset"] for question in questions):
        members = [question for question in questions if question["subset"] == subset]
        name, stderr = "score", None
        if reward_bench.has_ties(subset):
            value = reward_bench.ties_score(members)
        else:
            name, results = "accuracy", [question["result"] for question in members]
            value = statistics.fmean(results)
            stderr = statistics.stdev(results) / math.sqrt(len(results)) if len(results) > 1 else None
        rows.append(benchmark_results.metric(f"{subset}/{name}", value, stderr, len(members), settings))
    average = statistics.fmean(row["value"] for row in rows)
    return [*rows, benchmark_results.metric("average", average, None, len(questions), settings)]


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--data", required=True, help="questions in RewardBench 2's form")
    parser.add_argument("--benchmark", required=True, help="its name in the config")
    parser.add_argument("--reward", required=True, help="the reward's name")
    parser.add_argument("--model", required=True, help="the model's directory")
    section.add(parser, "rewards.NAME", "kind", "dtype", "head_weights", "opponents")
    parser.add_argument("--batch-tokens", type=int, required=True, help="most tokens in one forward pass")
    section.add(parser, "seed")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--scores", required=True, help="scores by question (jsonl)")
    parser.add_argument("--out", required=True, help="results (json)")
    args = parser.parse_args(argv)

    questions = reward_bench.read(args.data)
    answers = [
        (number, Dialogue(question["messages"], answer, question["where"]))
        for number, question in enumerate(questions)
        for answer in question["chosen"] + question["rejected"]
    ]
    numbers, dialogues = map(list, zip(*answers, strict=True))
    scored = reward_bench.scored(questions, score(args, dialogues, numbers))
    files.write_jsonl(args.scores, scored)
    settings = {"kind": args.kind, "dtype": args.dtype}
    settings |= (
        {"head_weights": args.head_weights} if args.kind == "classifier" else {"opponents": args.opponents}
    )
    rows = metrics(scored, settings)
    benchmark_results.write(
        args.out, args.reward, args.benchmark, "rewardbench", reward_bench.VERSION, rows, notes=[]
    )


if __name__ == "__main__":
    errors.run(main)

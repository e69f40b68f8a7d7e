"""Verify a policy's answers to mathematical problems by the function that also rewards: verifiers.math.

An answer at which the verifier takes too long or crashes is not right, and counts as `failed`, too.

    python -m scripts.benchmarks.verify_answers --policy grpo-1 --benchmark gsm8k \\
        --answers results/benchmarks/gsm8k/answers/grpo-1.jsonl --temperature 0 --max-tokens 1024 \\
        --verdicts results/benchmarks/gsm8k/verdicts/grpo-1.jsonl --out results/benchmarks/gsm8k/grpo-1.json

    reads   question, reference, answer, finish_reason
    writes  exact_match with its 95 % interval, failed and cut_off, in parts of one; beside them
            the verdict on each answer: right, wrong, timeout, crash, …
"""

import collections
import importlib.metadata
import math

from prefline import errors, files
from prefline.config import section
from prefline.data import benchmark_results
from prefline.judging import winrate
from prefline.rewards import NoReward, verifiers


def verdict(row):
    """Return right, wrong, or why the verifier failed (str), of an answer (dict)."""
    try:
        reward = verifiers.math([], row["answer"], row["reference"])
    except NoReward as error:
        return error.reason
    return "right" if reward == 1.0 else "wrong"


def metrics(rows, settings):
    """Return rows for the table of answers (list of dict) with verdicts. settings: dict."""
    n = len(rows)
    right = [float(row["verdict"] == "right") for row in rows]
    rate = sum(right) / n
    stderr = math.sqrt(rate * (1 - rate) / (n - 1)) if n > 1 else None
    low, high = winrate.mean_interval([[value] for value in right], 0.0, 1.0)
    failed = sum(row["verdict"] not in ("right", "wrong") for row in rows) / n
    cut_off = sum(row["finish_reason"] == "length" for row in rows) / n
    values = {"exact_match/low": low, "exact_match/high": high, "failed": failed, "cut_off": cut_off}
    return [
        benchmark_results.metric("exact_match", rate, stderr, n, settings),
        *(benchmark_results.metric(name, value, None, n, settings) for name, value in values.items()),
    ]


def notes(rows):
    """Return sentences for the reader (list of str): what the verifier failed at, and why."""
    failed = collections.Counter(row["verdict"] for row in rows if row["verdict"] not in ("right", "wrong"))
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(failed.items()))
    return (
        [f"The verifier failed at {failed.total()} answers, which count as wrong: {reasons}."]
        if failed
        else []
    )


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--policy", required=True, help="the policy's name")
    parser.add_argument("--benchmark", required=True, help="its name in the config")
    parser.add_argument("--answers", required=True, help="the policy's (jsonl)")
    section.add(parser, "benchmarks.NAME", "temperature", "max_tokens")
    parser.add_argument("--verdicts", required=True, help="answer and verdict by problem (jsonl)")
    parser.add_argument("--out", required=True, help="results (json)")
    args = parser.parse_args(argv)

    rows = [row | {"verdict": verdict(row)} for _, row in benchmark_results.read_list(args.answers)]
    settings = {"temperature": args.temperature, "max_tokens": args.max_tokens}
    files.write_jsonl(args.verdicts, rows)
    version = importlib.metadata.version("math-verify")
    found = metrics(rows, settings)
    benchmark_results.write(args.out, args.policy, args.benchmark, "math-verify", version, found, notes(rows))


if __name__ == "__main__":
    errors.run(main)

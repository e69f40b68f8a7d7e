"""Run the code that a policy wrote for HumanEval's problems against the tests of HumanEval and HumanEval+.

EvalPlus takes the code out of the answers, computes the expected outputs, runs each solution in a separate
process within its limits of time and memory, and judges. All of that happens in a sandbox, without network,
secrets, or other files than the problems and answers (prefline/machine/sandbox.py). Without a sandbox nothing
is run.

    python -m scripts.benchmarks.execute_evalplus --policy sft --benchmark humaneval \\
        --problems HumanEvalPlus.jsonl \\
        --answers results/benchmarks/humaneval/answers/sft.jsonl --temperature 0 --max-tokens 768 \\
        --parallel 4 --verdicts results/benchmarks/humaneval/verdicts/sft.jsonl \\
        --out results/benchmarks/humaneval/sft.json

    writes  humaneval/pass@1 and humaneval+/pass@1, in parts of one; the verdicts by problem beside them
"""

import importlib.metadata
import json
import os
import statistics
from pathlib import Path

from prefline import errors, files
from prefline.config import section
from prefline.data import benchmark_results
from prefline.errors import InputError
from prefline.judging import evalplus_tests
from prefline.machine import sandbox

# Of a problem; the library reads these.
KEYS = ("task_id", "entry_point", "contract", "canonical_solution", "base_input", "plus_input", "atol")
PASSED = "pass"
# Limit of what the solutions, and the library's copies of them, may write in all; it is memory.
MEGABYTES = 512
# Limit of what the library and the solutions use in all; the rule asks for more.
MEMORY_MB = 7_000
# Limits of time. The library gives a problem at most 60 s for the tests and 60 s for the plus tests.
SECONDS, SECONDS_PER_PROBLEM = 900, 130


def check(problems, answers, path):
    """Raise InputError unless problems (list of dict) are whole, each with one answer of those in `path`."""
    for number, problem in enumerate(problems, 1):
        missing = [key for key in KEYS if key not in problem]
        if missing:
            raise InputError(
                f"problem {number}: has no {missing[0]!r}; a file in EvalPlus's form is needed; get one "
                f"with: {benchmark_results.FETCH['evalplus']}"
            )
    asked, answered = [[row.get("task_id") for row in rows] for rows in (problems, answers)]
    if asked != answered:
        raise InputError(f"{path}: does not answer the problems one by one; delete it, and run again")


def execute(problems, answers, parallel):
    """Return EvalPlus's verdicts (list of dict) on the file `answers` for the file `problems`.

    parallel: int, solutions that run at once.
    """
    variables = {
        "HOME": sandbox.SCRATCH,  # the library keeps the expected outputs in its cache
        "TMPDIR": sandbox.SCRATCH,
        "PATH": os.defpath,
        "HUMANEVAL_OVERRIDE_PATH": evalplus_tests.PROBLEMS,
        "OMP_NUM_THREADS": "1",
        "PARALLEL": str(parallel),
    }
    inputs = {evalplus_tests.PROBLEMS: problems, evalplus_tests.ANSWERS: answers}
    asked = [json.loads(line)["task_id"] for line in Path(problems).read_text(encoding="utf-8").splitlines()]
    try:
        printed = sandbox.run(
            evalplus_tests.__file__,
            inputs,
            variables,
            megabytes=MEGABYTES,
            memory_mb=MEMORY_MB,
            seconds=SECONDS + SECONDS_PER_PROBLEM * len(asked) / parallel,
        )
        return [_verdict(row, task) for row, task in zip(json.loads(printed), asked, strict=True)]
    except (sandbox.Ended, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{problems}: EvalPlus gives no verdicts ({error}); see the lines above") from None


def _verdict(row, task):
    """Return the verdict on a task from what the sandbox printed, which a solution may have written."""
    keys = ("task_id", "solution", "base_status", "plus_status")
    found = {key: row[key] for key in keys}
    if found["task_id"] != task or not all(isinstance(value, str | None) for value in found.values()):
        raise ValueError(f"no verdict on {task}")
    return found


def metrics(verdicts, settings):
    """Return rows for the table of `verdicts` (list of dict). HumanEval+ has HumanEval's tests, too."""
    base = [float(one["base_status"] == PASSED) for one in verdicts]
    plus = [float(one["base_status"] == one["plus_status"] == PASSED) for one in verdicts]
    rows = []
    for name, passed in (("humaneval", base), ("humaneval+", plus)):
        stderr = statistics.stdev(passed) / len(passed) ** 0.5 if len(passed) > 1 else None
        rows.append(
            benchmark_results.metric(f"{name}/pass@1", statistics.mean(passed), stderr, len(passed), settings)
        )
    return rows


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--policy", required=True, help="the policy's name")
    parser.add_argument("--benchmark", required=True, help="its name in the config")
    parser.add_argument("--problems", required=True, help="in EvalPlus's form (jsonl)")
    parser.add_argument("--answers", required=True, help="the policy's (jsonl)")
    section.add(parser, "benchmarks.NAME", "temperature", "max_tokens")
    parser.add_argument("--parallel", type=int, required=True, help="solutions that run at once")
    parser.add_argument("--verdicts", required=True, help="code and verdict by problem (jsonl)")
    parser.add_argument("--out", required=True, help="results (json)")
    args = parser.parse_args(argv)

    problems = benchmark_results.read_questions(args.problems, "evalplus")
    check(problems, [row for _, row in benchmark_results.read_list(args.answers)], args.answers)
    verdicts = execute(args.problems, args.answers, args.parallel)
    settings = {"temperature": args.temperature, "max_tokens": args.max_tokens}
    rows = metrics(verdicts, settings)
    files.write_jsonl(args.verdicts, verdicts)
    version = importlib.metadata.version("evalplus")
    benchmark_results.write(args.out, args.policy, args.benchmark, "evalplus", version, rows, notes=[])


if __name__ == "__main__":
    errors.run(main)

"""Run EvalPlus's own evaluation of what a policy wrote, in execute_evalplus.py's sandbox.

Of an answer the library takes the code: up to what ends an answer in its own generation, then by its
`sanitize`. That happens here, too, as Python's parser is not safe from what it reads.

    reads   problems.jsonl, in the library's form; answers.jsonl with task_id, solution
    writes  to stdout [{"task_id", "solution", "base_status", "plus_status"}] (JSON)
"""

import json
import os
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

PROBLEMS, ANSWERS, SAMPLES = "problems.jsonl", "answers.jsonl", "samples.jsonl"
# The library's name for the results of SAMPLES.
RESULTS = SAMPLES.replace(".jsonl", "_eval_results.json")
# This ends the answer of a model with a chat template, beside the library's list for all models.
END_OF_CODE = "\n```\n"


def code_of(task):
    """Return the code (str) in an answer. task: (answer, name of the function that it is to define)."""
    from evalplus.provider.utility import EOS
    from evalplus.sanitize import sanitize

    answer, entry_point = task
    answer = answer[: min([answer.index(end) for end in [*EOS, END_OF_CODE] if end in answer], default=None)]
    try:
        return sanitize(answer.replace("\t", "    "), entry_point)
    except Exception:  # the parsers give up in many ways; so will the tests
        return answer


def main():
    # Its standard output is the result: what the library and the solutions print goes to the log.
    result = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    parallel = int(os.environ["PARALLEL"])
    lines = Path(PROBLEMS).read_text(encoding="utf-8").splitlines()
    entry_points = {task["task_id"]: task["entry_point"] for task in map(json.loads, lines)}
    answers = [json.loads(line) for line in Path(ANSWERS).read_text(encoding="utf-8").splitlines()]
    from evalplus.evaluate import evaluate

    with ProcessPoolExecutor(parallel) as pool:
        codes = pool.map(code_of, [(row["solution"], entry_points[row["task_id"]]) for row in answers])
    samples = [
        {"task_id": row["task_id"], "solution": code} for row, code in zip(answers, codes, strict=True)
    ]
    Path(SAMPLES).write_text("".join(json.dumps(row) + "\n" for row in samples), encoding="utf-8")
    evaluate("humaneval", samples=SAMPLES, parallel=parallel)
    found = json.loads(Path(RESULTS).read_text(encoding="utf-8"))["eval"]
    keys = ("task_id", "solution", "base_status", "plus_status")
    json.dump([{key: found[row["task_id"]][0][key] for key in keys} for row in answers], result)
    result.close()


if __name__ == "__main__":
    code = 1
    try:
        main()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # a thread of the library watches for ever

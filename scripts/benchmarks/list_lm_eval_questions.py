"""Write what lm-evaluation-harness asks in a benchmark's tasks, for the search of the training data.

    python -m scripts.benchmarks.list_lm_eval_questions --benchmark gsm8k --tasks '["gsm8k"]' \\
        --include-path null --out results/benchmarks/gsm8k/questions.jsonl

    writes  task, question: without the few-shot examples
"""

import os

from prefline import errors, files
from prefline.config import section
from scripts.benchmarks.evaluate_lm_eval import load_tasks


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--benchmark", required=True, help="its name in the config")
    section.add(parser, "benchmarks.NAME", "tasks", "include_path")
    parser.add_argument("--out", required=True, help="questions (jsonl)")
    args = parser.parse_args(argv)

    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"  # before the libraries are read
    tasks = load_tasks(args.tasks, args.include_path, args.benchmark).load(args.tasks)["tasks"]
    rows = [
        {"task": name, "question": str(task.doc_to_text(row))}
        for name, task in sorted(tasks.items())
        for row in task.eval_docs
    ]
    files.write_jsonl(args.out, rows)
    print(f"{len(rows)} questions of {len(tasks)} tasks")


if __name__ == "__main__":
    errors.run(main)

"""Evaluate a policy on tasks of lm-evaluation-harness, with the library's own evaluator.

The library owns the prompts, the few-shot examples, the answers' filters and the metrics; this script gives
it the policy and stores the results. Data comes from the task folder or from this machine's cache of the hub.
A job does not fetch it, since the hub's data may change and many GPU nodes have no network. The error for
missing data names the command that fetches it beforehand.

    python -m scripts.benchmarks.evaluate_lm_eval --model results/models/sft --policy sft --benchmark gsm8k \\
        --tasks '["gsm8k"]' --include-path null --num-fewshot 5 --limit null --apply-chat-template true \\
        --dtype bfloat16 --seed 1 --batch-size 16 --samples results/benchmarks/gsm8k/samples/sft.jsonl \\
        --out results/benchmarks/gsm8k/sft.json

    writes  out: see prefline/data/benchmark_results.py; a metric is TASK/METRIC or TASK/METRIC,FILTER
            samples: a row for each question and filter, with the library's names: task, doc_id, arguments
            (what the policy read), resps (what it answered), filtered_resps, target, metrics of this question
"""

import difflib
import importlib.metadata
import math
import os
from pathlib import Path

from prefline import errors, files, unicode
from prefline.config import schema, section
from prefline.data import benchmark_results
from prefline.errors import InputError

# The library's name of the filter that leaves an answer unchanged.
NO_FILTER = "none"
SAMPLE = ("doc_id", "filter", "arguments", "resps", "filtered_resps", "target")


def load_tasks(names, include_path, benchmark):
    """Return the library's TaskManager, once it has loaded the tasks `names` (list of str).

    include_path: str, a folder with the user's task files, or None; benchmark: its name in the config, for
    messages. Raises InputError for names that the library does not know and for data that is not here.
    """
    from lm_eval.tasks import TaskManager

    if include_path is not None and not Path(include_path).is_dir():
        raise InputError(f"config: benchmarks.{benchmark}.include_path: there is no folder {include_path}")
    manager = TaskManager(include_path=include_path)
    for name in names:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else "`lm-eval ls tasks` lists them"
            raise InputError(
                f"config: benchmarks.{benchmark}.tasks: lm-evaluation-harness has no task {name!r}; {hint}"
            )
    for name in names:
        try:
            manager.load([name])
        except (OSError, ValueError, RuntimeError) as error:  # the hub's and datasets' errors are among them
            where = "" if include_path is None else f"include_path={include_path!r}"
            raise InputError(
                f"benchmarks.{benchmark}: the data of the task {name} is not here ({_line(error)}); fetch "
                f'it where there is a network: python -c "from lm_eval.tasks import TaskManager; '
                f'TaskManager({where}).load([{name!r}])"'
            ) from None
    return manager


def metrics(results, library_settings):
    """Return rows for the table (list of dict) from what the library returns.

    results: of simple_evaluate; library_settings: dict, the same for all rows.
    """
    rows = []
    for task, values in sorted(results["results"].items()):
        counted = results["n-samples"].get(task) or _of_group(task, results)
        settings = library_settings | {
            "task_version": results["versions"].get(task),
            "num_fewshot": results["n-shot"].get(task),
        }
        for name, value in sorted(values.items()):
            metric, _, used_filter = name.partition(",")
            if not used_filter or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            stderr = values.get(f"{metric}_stderr,{used_filter}")
            rows.append(
                benchmark_results.metric(
                    f"{task}/{metric}" if used_filter == NO_FILTER else f"{task}/{name}",
                    value,
                    stderr if isinstance(stderr, (int, float)) else None,
                    counted["effective"],
                    settings,
                )
            )
    return rows


def _of_group(group, results):
    """Return how many questions the tasks of a group have, those of groups in it included."""
    children = results.get("group_subtasks", {}).get(group, [])
    counts = [results["n-samples"].get(child) or _of_group(child, results) for child in children]
    return {"effective": sum(count["effective"] for count in counts)}


def samples(results):
    """Return rows (list of dict) of what was asked and answered, from what the library returns."""
    return [
        {"task": task} | {name: _plain(sample[name]) for name in (*SAMPLE, *sample["metrics"])}
        for task, logged in sorted(results["samples"].items())
        for sample in logged
    ]


def _plain(value):
    """Return a value of the library as JSON has it: null for what is no number, text for any other object."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()  # numpy's
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _line(error):
    return " ".join(str(error).split())[:200]


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--model", required=True, help="the policy's directory")
    parser.add_argument("--policy", required=True, help="its name")
    parser.add_argument("--benchmark", required=True, help="its name in the config")
    section.add(parser, "benchmarks.NAME", *schema.kinds("benchmarks.NAME")["lm_eval"])
    section.add(parser, "seed")
    parser.add_argument(
        "--batch-size", type=int, required=True, help="questions that the model reads together"
    )
    parser.add_argument("--samples", required=True, help="questions and answers (jsonl)")
    parser.add_argument("--out", required=True, help="results (json)")
    args = parser.parse_args(argv)

    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"  # before the libraries are read
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    manager = load_tasks(args.tasks, args.include_path, args.benchmark)

    import lm_eval
    import torch
    from lm_eval.models.huggingface import HFLM

    policy = HFLM(
        pretrained=args.model,
        dtype=args.dtype,
        device="cuda" if torch.cuda.is_available() else "cpu",
        batch_size=args.batch_size,
        trust_remote_code=False,
        use_safetensors=True,
    )
    results = lm_eval.simple_evaluate(
        model=policy,
        tasks=args.tasks,
        task_manager=manager,
        num_fewshot=args.num_fewshot,
        limit=args.limit,
        apply_chat_template=args.apply_chat_template,
        fewshot_as_multiturn=args.apply_chat_template,
        log_samples=True,
        random_seed=args.seed,
        numpy_random_seed=args.seed,
        torch_random_seed=args.seed,
        fewshot_random_seed=args.seed,
    )
    settings = {
        "limit": args.limit,
        "apply_chat_template": args.apply_chat_template,
        "dtype": args.dtype,
        "seed": args.seed,
    }
    rows = metrics(results, settings)
    version = importlib.metadata.version("lm_eval")
    files.write_jsonl(args.samples, unicode.valid(samples(results)))
    benchmark_results.write(args.out, args.policy, args.benchmark, "lm_eval", version, rows, notes=[])


if __name__ == "__main__":
    errors.run(main)

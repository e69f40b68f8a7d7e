"""Results of benchmarks: results/benchmarks/{benchmark}/{policy}.json, in one form for all libraries.

For a benchmark of reward models, `policy` is the name of a reward.

    {"policy", "benchmark", "library", "version", "notes": [sentences for the reader],
     "metrics": [{"metric", "value", "stderr", "n", "settings"}]}

A value is on the library's own scale: some give parts of one, some percent. n counts the questions.
"""

import json
import math
from pathlib import Path

from prefline import files, unicode
from prefline.errors import InputError

# The field with the question in the files of each library; those of math are made by check_problems.
QUESTION = {"alpaca_eval": "instruction", "evalplus": "prompt", "math": "question", "reward_bench": "prompt"}
# Commands that get the files that the libraries publish.
FETCH = {
    "alpaca_eval": "hf download --repo-type dataset tatsu-lab/alpaca_eval alpaca_eval_gpt4_baseline.json "
    "--local-dir .",
    "evalplus": "curl -L https://github.com/evalplus/humanevalplus_release/releases/download/v0.1.10/"
    "HumanEvalPlus.jsonl.gz | gunzip > HumanEvalPlus.jsonl",
    "reward_bench": 'python -c "from datasets import load_dataset; '
    "load_dataset('allenai/reward-bench-2', split='test').to_json('reward-bench-2.jsonl')\"",
}


def read_questions(path, form):
    """Return the rows (list of dict) of a benchmark's questions, each asked once.

    path: jsonl, or json with a list; form: of QUESTION. Raises InputError for a file that is not there, with
    the command that gets the published one, and for rows without a question or with one that another has.
    """
    check_there(path, form)
    key, seen, rows = QUESTION[form], set(), []
    for where, row in read_list(path):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise InputError(f"{where}: has no text as {key!r}")
        if row[key] in seen:
            raise InputError(f"{where}: asks what an earlier row asks; remove one of the two")
        seen.add(row[key])
        rows.append(row)
    if not rows:
        raise InputError(f"{path}: holds no question")
    return rows


def check_there(path, form):
    """Raise InputError, with the command that gets the published one, if there is no file `path`."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; get the published one with: {FETCH[form]}")


def read_list(path):
    """Yield (where, row) for every row (dict) of a jsonl file, or of a json file with a list.

    Raises InputError for anything else.
    """
    text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    for where, row in _entries(path, text) if Path(path).suffix == ".json" else _lines(path, text):
        if not isinstance(row, dict):
            raise InputError(f"{where}: a JSON object is needed")
        if not unicode.is_valid(row):
            raise InputError(f"{where}: {unicode.FAULT}; {unicode.ADVICE}")
        yield where, row


def _entries(path, text):
    """Yield (where, value) of a json file with a list."""
    rows = _parsed(path, text, 1)
    if not isinstance(rows, list):
        raise InputError(f"{path}: a list of objects is needed")
    yield from ((f"{path}, entry {number}", row) for number, row in enumerate(rows, 1))


def _lines(path, text):
    """Yield (where, value) of a jsonl file."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", _parsed(path, line, number)


def _parsed(path, text, first):
    """Return the JSON of a file's text that begins at the line `first`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first + error.lineno - 1
        raise InputError(f"{path}, line {line}: not valid JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:  # too deep, or a number of thousands of digits
        raise InputError(f"{path}, line {first}: not valid JSON ({error})") from None


def metric(name, value, stderr, n, settings):
    """Return one number (dict). stderr: standard error, or None; n: int; settings: dict of JSON values."""
    return {
        "metric": name,
        "value": _finite(value),
        "stderr": _finite(stderr),
        "n": int(n),
        "settings": settings,
    }


def write(path, policy, benchmark, library, version, metrics, notes):
    """Write the results of a policy and say them. metrics: list of `metric`; notes: list of str."""
    files.write_json(
        path,
        {
            "policy": policy,
            "benchmark": benchmark,
            "library": library,
            "version": version,
            "notes": notes,
            "metrics": metrics,
        },
    )
    for one in metrics:
        stderr = "" if one["stderr"] is None else f" ± {one['stderr']:.4g}"
        value = "undefined" if one["value"] is None else f"{one['value']:.4g}"
        print(f"{policy}, {benchmark}: {one['metric']} {value}{stderr} ({one['n']} questions)")
    for note in notes:
        print(note)


def _finite(value):
    """Return `value` as a float; None for None and for non-numbers, such as the error of a single answer."""
    return float(value) if value is not None and math.isfinite(value) else None

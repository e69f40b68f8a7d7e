"""Importing prompts and pairs: prepare_prompts and import_preferences beside `datasets.map`.

A table of rows/s by the clock and in CPU time, ratios and peak memory, from one process after another, starts
included. All read a jsonl file of random words, with the embedded tokenizer and chat template, and write
parquet:

- `ours`: prepare_prompts for prompts; for pairs import_preferences, then tokenize_preferences;
- `datasets.map`: a function of one row that renders the template to ids, in one process and in two. It
  counts, compares and drops nothing. The CPU time of two processes lacks that of the workers.

    OMP_NUM_THREADS=1 python -m measurements.data_import --prompts 50000 --pairs 50000
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from prefline.config import section

QUESTION, ANSWER = 40, 80  # words
TOKENIZER = "data/policy"
TWO = "datasets.map, 2"
QUESTIONS = "data/mt_bench/question.jsonl"
COMMON = {
    "--system": "null",
    "--tokenizer": TOKENIZER,
    "--questions": QUESTIONS,
    "--test-fraction": 0.15,
    "--decontamination-ngram": 8,
    "--seed": 1,
    "--special-tokens": "drop",
    "--max-dropped": 0.2,
}
COLUMNS = {
    "prompts": {"prompt": "prompt"},
    "pairs": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
}


def write_data(folder, kind, rows):
    """Write the jsonl file of so many rows; return its path."""
    drawn, path = random.Random(0), Path(folder, f"{kind}.jsonl")
    pages = [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
    words = [word for page in pages for word in page.read_text(encoding="utf-8").split() if word.isalpha()]

    def say(number):
        return " ".join(drawn.choices(words, k=number))

    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            row = {"prompt": f"{say(QUESTION)}?"}
            if kind == "pairs":
                row |= {"chosen": say(ANSWER), "rejected": say(ANSWER)}
            file.write(json.dumps(row) + "\n")
    return path


def mapped(kind, path, out, processes):
    """Write the ids of the rows of `path` to `out` by datasets.map."""
    import datasets
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER, trust_remote_code=False)

    def ids(messages, **more):
        return tokenizer.apply_chat_template(messages, return_dict=False, **more)

    def prompt(row):
        return {"prompt_ids": ids([{"role": "user", "content": row["prompt"]}], add_generation_prompt=True)}

    def pair(row):
        asked = [{"role": "user", "content": row["prompt"]}]
        made = prompt(row)
        for side in ("chosen", "rejected"):
            whole = ids([*asked, {"role": "assistant", "content": row[side]}])
            made[f"{side}_ids"] = whole[len(made["prompt_ids"]) :]
        return made

    cache = Path(out).parent / "cache"
    rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(cache))
    rows = rows.map(pair if kind == "pairs" else prompt, num_proc=processes if processes > 1 else None)
    rows.to_parquet(out)


def commands(kind, path, folder):
    """Return {way: its commands, each a list of str}."""
    own = {"--source": path, "--columns": json.dumps(COLUMNS[kind])} | COMMON
    own |= {"--out": f"{folder}/ours.parquet", "--metrics": f"{folder}/ours.json"}
    if kind == "prompts":
        ours = [["scripts.prompts.prepare_prompts", own | {"--max-prompt-length": 512}]]
    else:
        own |= {"--num-pairs": "null", "--unpaired": "false"}
        limits = dict.fromkeys(("--max-prompt-length", "--max-completion-length", "--max-length"), "null")
        made = {"--preferences": own["--out"], "--tokenizer": TOKENIZER, **limits, "--max-dropped": 0.2}
        made |= {"--out": f"{folder}/ids.parquet", "--metrics": f"{folder}/ids.json"}
        ours = [["scripts.prompts.import_preferences", own], ["scripts.tokenize.tokenize_preferences", made]]
    found = {
        "ours": [
            ["-m", module, *(str(word) for flag in flags.items() for word in flag)] for module, flags in ours
        ]
    }
    for processes in (1, 2):
        call = f"mapped({kind!r}, {str(path)!r}, {f'{folder}/map{processes}.parquet'!r}, {processes})"
        code = f"from measurements.data_import import mapped; {call}"
        found[f"datasets.map, {processes}"] = [["-c", code]]
    return found


def run(command):
    """Run Python with the words `command`; return (seconds, CPU seconds, peak MB), its processes included."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(said)
    return time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--prompts", type=int, nargs="*", default=[50000], help="numbers of prompts")
    parser.add_argument("--pairs", type=int, nargs="*", default=[50000], help="numbers of pairs")
    parser.add_argument("--ours-only", action="store_true", help="without datasets.map")
    args = parser.parse_args(argv)

    print("| rows | way | s | CPU s | rows per CPU s | ours, times faster: clock, CPU | peak MB |")
    print("|---|---|---|---|---|---|---|")
    for kind, number in [("prompts", each) for each in args.prompts] + [
        ("pairs", each) for each in args.pairs
    ]:
        with tempfile.TemporaryDirectory() as folder:
            path = write_data(folder, kind, number)
            ours = None
            for way, steps in commands(kind, path, folder).items():
                if args.ours_only and ours is not None:
                    continue
                measured = [run(step) for step in steps]
                seconds, used = (sum(column) for column in list(zip(*measured, strict=True))[:2])
                ours = ours or (seconds, used)
                ratios = f"{seconds / ours[0]:.2f}, {used / ours[1]:.2f}" if ours[0] != seconds else ""
                ratios = ratios.split(",")[0] if way == TWO else ratios
                peaks = ", ".join(f"{peak:.0f}" for _, _, peak in measured)
                cells = [f"{number} {kind}", way, f"{seconds:.1f}", f"{used:.1f}", f"{number / used:.0f}"]
                print(f"| {' | '.join([*cells, ratios, peaks])} |", flush=True)


if __name__ == "__main__":
    main()

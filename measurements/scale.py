"""Time and peak memory of each data step by the number of prompts, and how they grow.

Every step is the project's script in a new process, start included. Its inputs are synthetic: prompts of 40
random words, --samples completions of --tokens ids each, random rewards. The table has CPU seconds (user and
system), seconds by the clock, peak memory, and the size of the files that the step read and wrote. `copy` is
a plain pyarrow loop that turns the rows of the same files into Python objects and writes the files again.
The growth between two sizes is the exponent of CPU seconds: 1 is linear.

    OMP_NUM_THREADS=1 python -m measurements.scale --prompts 10000 100000
    OMP_NUM_THREADS=1 python -m measurements.scale --prompts 50000 --tokens 450
"""

import json
import math
import random
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from measurements.data_import import COLUMNS, COMMON, TOKENIZER, run, write_data
from prefline import files
from prefline.config import section
from prefline.data import tables
from prefline.provenance import journal

SHARD = 1000  # prompts
STEPS = ("prepare_prompts", "sample_prompts", "journal", "build_preferences", "tokenize_preferences")
STEPS += ("compute_ref_logps", "train_policy", "report")
WEIGHTING = {"reward_model": {"kind": "classifier", "weight": 1.0, "normalize": "policy"}}
REFERENCE = {"temperature": 1.0, "dtype": "float32", "attn_implementation": "sdpa"}


def words_of(flags):
    """Return the words (list of str) of a command line from {flag: value or list of values}."""
    words = []
    for name, value in flags.items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return words


def shard_names(folder):
    return sorted(path.stem for path in Path(folder, "prompts").glob("*.parquet"))


def write_shards(folder, args, drawn):
    """Write shards of prompts, completions and rewards of the prompts in the pool, without Python objects."""
    pool = pq.ParquetFile(folder / "pool.parquet")
    lines = [" ".join(random.Random(row).choices(("alpha", "beta", "gamma", "delta"), k=args.tokens * 4 // 5))
             for row in range(500)]  # fmt: skip
    lines, number = np.array(lines, dtype=object), {"train": 0, "test": 0}
    for kind in ("prompts", "completions", "rewards/reward_model"):
        (folder / "sft" / kind).mkdir(parents=True)
    for batch in pool.iter_batches(20 * SHARD):
        everything = pa.Table.from_batches([batch])
        for split in number:
            rows = everything.filter(pc.equal(everything["split"], split))
            for start in range(0, len(rows), SHARD):
                part = rows.slice(start, SHARD).select(tables.PROMPTS.names)
                name = f"{split}-{number[split]:05d}.parquet"
                number[split] += 1
                pq.write_table(part, folder / "sft/prompts" / name, compression="zstd")
                _write_answers(folder / "sft", name, part["prompt_id"], lines, args, drawn)


def _write_answers(folder, name, prompt_ids, lines, args, drawn):
    rows = len(prompt_ids) * args.samples
    ids = drawn.integers(5, 500, rows * args.tokens, dtype=np.int32)
    said = lines[drawn.integers(0, len(lines), rows)] + np.arange(rows).astype(str).astype(object)
    offsets = np.arange(0, len(ids) + 1, args.tokens, dtype=np.int32)
    named = {
        "prompt_id": np.repeat(prompt_ids.to_numpy(zero_copy_only=False), args.samples),
        "sample": np.tile(np.arange(args.samples, dtype=np.int32), len(prompt_ids)),
    }
    made = {
        **named,
        "completion_ids": pa.ListArray.from_arrays(offsets, ids),
        "completion": said,
        "answer": pa.nulls(rows, pa.string()),
        "finish_reason": np.full(rows, "stop", dtype=object),
        "seed": np.arange(rows),
    }
    scored = {
        **named,
        "reward": drawn.normal(size=rows).astype(np.float32),
        "parts": pa.nulls(rows, pa.list_(pa.float32())),
    }
    for columns, schema, kind in (
        (made, tables.COMPLETIONS, "completions"),
        (scored, tables.REWARDS, "rewards/reward_model"),
    ):
        pq.write_table(pa.table(columns, schema=schema), folder / kind / name, compression="zstd")


def fill_journal(folder, rows, tokens):
    """Write the rows of other shards into a journal, SHARD × 4 a process, as generate_completions does."""
    value = {"completion_ids": [7] * tokens, "completion": "word " * tokens, "finish_reason": "stop"}
    for first in range(0, rows, 4 * SHARD):
        keys = [journal.key(row) for row in range(first, first + 4 * SHARD)]
        made = journal.Journal(folder, "completions", {}, "measured")
        made._append(dict.fromkeys(keys, value))


MISS = """
from prefline.provenance import journal
kept = journal.Journal({folder!r}, "completions", {{}}, "measured")
kept.rows({{journal.key("new", row): 0 for row in range(4000)}}, lambda missing: [dict.fromkeys(missing, 0)])
"""
TRAIN = """
from prefline import files
from prefline.training import ref_logps
from scripts.train import train_policy
reference = files.read_json({manifest!r})["files"]
pairs = ref_logps.joined([{tokenized!r}], [{logps!r}], reference, 1.0, 10**9, {folder!r})
train_policy.check_pairs(pairs, "sigmoid", {{}})
from prefline.training.preference_trainer import Pairs
made = Pairs(pairs, train_policy.split_of(pairs, "train"))
print(len(made), sum(len(made[row]["chosen_ids"]) for row in range(0, len(made), 97)))
"""
LIBRARIES = "from prefline.training.preference_trainer import Pairs; from scripts.train import train_policy"
REPORT = """
from pathlib import Path
from prefline.reporting import browsed
found = browsed.samples(Path({folder!r}), {shards!r}, 200)
assert len(found) == 200
"""
COPY = """
import sys
import pyarrow.parquet as pq
out, *paths = sys.argv[1:]
for path in paths:
    with pq.ParquetFile(path) as file, pq.ParquetWriter(out, file.schema_arrow, compression="zstd") as made:
        for batch in file.iter_batches(1000):
            batch.to_pylist()
            made.write_batch(batch)
"""


def fill_logps(folder):
    """Write a journal that has the log-probability of every sequence of tokenized.parquet."""
    model = folder / "model"
    if not model.exists():
        shutil.copytree(TOKENIZER, model)
        contents = {path.name: files.sha256(path) for path in sorted(model.iterdir())}
        files.write_json(folder / "model.json", {"files": contents})
    context = journal.context(
        "scripts/logps/compute_ref_logps.py", model, ("torch", "transformers"), **REFERENCE
    )
    made = journal.Journal(folder / "journal", "ref_logps", context, "measured")
    for batch in pq.ParquetFile(folder / "tokenized.parquet").iter_batches(1000):
        rows = batch.to_pylist()
        for side in ("chosen", "rejected"):
            keys = [journal.key(row["prompt_ids"], row[f"{side}_ids"]) for row in rows]
            made._append(dict.fromkeys(keys, -50.5))


def commands(folder, args):
    """Yield (step, command, files read and written); the caller runs each before the next is asked for."""
    own = {"--source": folder / "prompts.jsonl", "--columns": json.dumps(COLUMNS["prompts"])} | COMMON
    own |= {"--max-prompt-length": 4096, "--out": folder / "pool.parquet", "--metrics": folder / "pool.json"}
    words = [str(word) for flag in own.items() for word in flag]
    yield "prepare_prompts", ["-m", "scripts.prompts.prepare_prompts", *words], [folder / "pool.parquet"]
    (folder / "shard").mkdir()
    flags = {
        "pool": folder / "pool.parquet",
        "split": "train",
        "first": int(0.8 * args.number) // SHARD * SHARD - SHARD,
        "number": SHARD,
    }
    flags["out"] = folder / "shard/one.parquet"
    sample = ["-m", "scripts.prompts.sample_prompts", *words_of(flags)]
    yield "sample_prompts", sample, [flags["out"]]
    if "journal" in args.steps:
        fill_journal(folder / "others", args.number * args.samples, args.tokens)
    yield "journal", ["-c", MISS.format(folder=str(folder / "others"))], []
    shutil.rmtree(folder / "others", ignore_errors=True)
    write_shards(folder, args, np.random.default_rng(0))
    names = shard_names(folder / "sft")
    kinds = {"prompts": "prompts", "completions": "completions", "rewards": "rewards/reward_model"}
    paths = {
        key: [folder / "sft" / kind / f"{name}.parquet" for name in names] for key, kind in kinds.items()
    }
    rank = {"strategy": "max_min", "length_penalty": 0.0, "min_margin": 0.0, "truncated": "drop"}
    splits = [name.split("-")[0] for name in names]
    shards = {split: splits.count(split) for split in ("test", "train")}
    flags = {
        "samples": folder / "sft",
        "shards": json.dumps(shards),
        "weighting": json.dumps(WEIGHTING),
        "num_completions": args.samples,
        **rank,
        "seed": 1,
    }
    flags |= {"out": folder / "preferences.parquet", "ranked": folder / "sft/ranked.parquet"}
    flags |= {"metrics": folder / "preferences.json"}
    read = [path for of_kind in paths.values() for path in of_kind]
    yield (
        "build_preferences",
        ["-m", "scripts.rank.build_preferences", *words_of(flags)],
        [*read, flags["out"], flags["ranked"]],
    )
    limits = dict.fromkeys(("max_prompt_length", "max_completion_length", "max_length"), "null")
    flags = {"preferences": folder / "preferences.parquet", "tokenizer": TOKENIZER, **limits}
    flags |= {"max_dropped": 0.2, "out": folder / "tokenized.parquet", "metrics": folder / "tokenized.json"}
    tokenize = ["-m", "scripts.tokenize.tokenize_preferences", *words_of(flags)]
    yield "tokenize_preferences", tokenize, [flags["preferences"], flags["out"]]
    fill_logps(folder)
    flags = {"tokenized": folder / "tokenized.parquet", "model": folder / "model", "part": "0000"}
    flags |= {"num_shards": 1, "batch_tokens": 16384, **REFERENCE, "journal": folder / "journal"}
    flags["out"] = folder / "logps.parquet"
    score = ["-m", "scripts.logps.compute_ref_logps", *words_of(flags)]
    yield "compute_ref_logps", score, [flags["tokenized"], flags["out"]]
    named = {"manifest": folder / "model.json", "tokenized": folder / "tokenized.parquet"}
    named |= {"logps": folder / "logps.parquet", "folder": folder / "work"}
    train = TRAIN.format(**{name: str(path) for name, path in named.items()})
    yield "libraries of train_policy", ["-c", LIBRARIES], []
    yield "train_policy", ["-c", train], [named["tokenized"], named["logps"]]
    report = REPORT.format(folder=str(folder / "sft"), shards=names)
    yield "report", ["-c", report], []


def measure(number, args):
    """Print a row for each step at a number of prompts; return {step: CPU seconds}."""
    args.number, found = number, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, "prompts", number)
        for step, command, touched in commands(folder, args):
            seconds, used, peak = run(command)
            found[step] = used
            size = sum(path.stat().st_size for path in touched) / 1e6
            copied = ""
            if touched:
                copied = f"{run(['-c', COPY, folder / 'copy.parquet', *touched])[1]:.1f}"
            cells = [number, step, f"{used:.1f}", f"{seconds:.1f}", f"{peak:.0f}", f"{size:.0f}", copied]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return found


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--prompts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--samples", type=int, default=4, help="completions of a prompt")
    parser.add_argument("--tokens", type=int, default=40, help="tokens of a completion")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    args = parser.parse_args(argv)
    print("| prompts | step | CPU s | s | peak MB | files MB | copy, CPU s |")
    print("|---|---|---|---|---|---|---|")
    measured = {number: measure(number, args) for number in args.prompts}
    for small, large in zip(args.prompts, args.prompts[1:], strict=False):
        for step, used in measured[large].items():
            exponent = math.log(used / measured[small][step]) / math.log(large / small)
            print(f"{step}: growth {exponent:.2f} from {small} to {large} prompts")


if __name__ == "__main__":
    sys.exit(main())

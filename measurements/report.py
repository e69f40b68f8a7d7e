"""How long the report of a large experiment takes, and how large the page is.

Writes results for several policies of one run, all of them sampled, 80 questions and the words of a judge.
Each text is a passage of the README and docs, begun at a random word. Then times
`python -m scripts.report.write_report` in its own process, its imports included.

    python -m measurements.report --policies 5 --completions 10000 --words 200
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from prefline import files
from prefline.config import section
from prefline.data import tables
from scripts.mt_bench import compute_winrate, plot_winrate

SAMPLES, QUESTIONS, CATEGORIES = 5, 80, ("writing", "math", "coding", "humanities")
SPLITS = {"test": "test-00000", "train": "train-00000"}


def experiment(folder, policies, completions, say):
    """Write an experiment's results under `folder` (Path); the flags of write_report for it (list of str).

    policies: the start policy and those of one run (list of str); completions: of each but the last policy,
    five to a prompt, a fifth of the prompts held out; say: a function of a kind ("prompt", "answer",
    "verdict", "completion") that gives a text.
    """
    drawn = np.random.default_rng(0)
    _mt_bench(folder, policies, say, drawn)
    flags = [
        *("--winrate", f"{folder}/winrate.json", "--winrate-picture", f"{folder}/winrate.png"),
        *("--sweeps-picture", f"{folder}/winrate.png"),
        *("--drift-picture", f"{folder}/winrate.png"),
        *("--questions", f"{folder}/question.jsonl", "--policies", *policies),
        *("--answers", *(f"{folder}/answers/{policy}.jsonl" for policy in policies)),
        *("--judgments", *(f"{folder}/judgments/{policy}.jsonl" for policy in policies[1:])),
        "--ratings",
    ]
    for policy in policies[:-1]:
        _sample(folder / "samples" / policy, completions, say, drawn)
    files.write_json(folder / "pool.json", {"kept": {"test": 9, "train": 9}, "dropped": {"too_long": 3}})
    for policy in policies:
        measured = {"train_steps": 100, "eval_loss": 0.5, "eval_loss_before": 0.7}
        files.write_json(folder / "training" / policy / "metrics.json", measured)
        shutil.copy("docs/rewards.png", folder / "training" / policy / "training.png")
        made = {"files": {"model.safetensors": "0" * 64}, "lineage": {"rule": "train_policy", "parents": {}}}
        files.write_json(folder / "models" / f"{policy}.json", made)
        answered = {"messages": [{"role": "user", "content": say("prompt")}], "finish_reason": "length"}
        files.write_jsonl(folder / "vibe_check" / f"{policy}.jsonl", [answered | {"answer": say("answer")}])
    run = {"loss_type": "sigmoid", "beta": 0.1}
    config = {"seed": 1, "note": say("prompt"), "runs": {"dpo": run}}
    (folder / "logs").mkdir()
    (folder / "benchmarks.csv").write_text(
        "policy,benchmark,metric,value,n,settings\n"
        + "".join(f"{policy},gsm8k,exact_match,0.123456,1319,{{}}\n" for policy in policies)
    )
    return [
        *flags,
        *("--vibe-check", *(f"{folder}/vibe_check/{policy}.jsonl" for policy in policies)),
        *("--tables", f"{folder}/benchmarks.csv"),
        *("--pool", f"{folder}/pool.json", "--samples", f"{folder}/samples"),
        *(
            "--sampled",
            *policies[:-1],
            "--paired",
            *policies[:-1],
            "--shards",
            json.dumps(dict.fromkeys(SPLITS, 1)),
        ),
        *("--training", f"{folder}/training", "--trained", *policies),
        *("--manifests", *(f"{folder}/models/{policy}.json" for policy in policies)),
        *("--logs", f"{folder}/logs", "--config", json.dumps(config)),
        *("--runs", json.dumps({"dpo": run})),
    ]


def _mt_bench(folder, policies, say, drawn):
    questions = [
        {
            "question_id": one,
            "category": CATEGORIES[one % len(CATEGORIES)],
            "turns": [say("prompt"), say("prompt")],
        }
        for one in range(QUESTIONS)
    ]
    files.write_jsonl(folder / "question.jsonl", questions)
    for policy in policies:
        answers = [
            {"question_id": one, "choices": [{"index": 0, "turns": [say("answer"), say("answer")]}]}
            for one in range(QUESTIONS)
        ]
        files.write_jsonl(folder / "answers" / f"{policy}.jsonl", answers)
        judgments = [
            {
                "question_id": one, "turn": turn, "model_1": policy, "model_2": policies[0],
                "g1_winner": str(drawn.choice(["model_1", "model_2", "tie"])),
                "g2_winner": str(drawn.choice(["model_1", "model_2", "tie"])),
                "g1_judgment": say("verdict"), "g2_judgment": say("verdict"), "judge": ["random", "pair"],
            }
            for one in range(QUESTIONS) for turn in (1, 2)
        ]  # fmt: skip
        files.write_jsonl(folder / "judgments" / f"{policy}.jsonl", judgments)
    compute_winrate.main(
        [
            *("--questions", f"{folder}/question.jsonl", "--policies", *policies[1:], "--start", policies[0]),
            *("--judgments", *(f"{folder}/judgments/{policy}.jsonl" for policy in policies[1:])),
            *("--answers", *(f"{folder}/answers/{policy}.jsonl" for policy in policies[1:])),
            *("--other-judges", "--other-judgments", "--pairs"),
            *("--start-answers", f"{folder}/answers/{policies[0]}.jsonl", "--bootstrap-samples", "1000"),
            *("--max-lost", "0.2"),
            *("--seed", "1", "--out", f"{folder}/winrate.json", "--csv", f"{folder}/winrate.csv"),
        ]
    )
    plot_winrate.main(["--winrate", f"{folder}/winrate.json", "--out", f"{folder}/winrate.png"])


def _sample(folder, completions, say, drawn):
    prompts, ranked = completions // SAMPLES, []
    for split, shard in SPLITS.items():
        mine = range(prompts // 5) if split == "test" else range(prompts // 5, prompts)
        asked = [
            {
                "prompt_id": f"{one:08x}", "prompt_ids": [1],
                "messages": [{"role": "user", "content": say("prompt")}],
            }
            for one in mine
        ]  # fmt: skip
        tables.write(folder / "prompts" / f"{shard}.parquet", asked, tables.PROMPTS)
        said = [
            {
                "prompt_id": f"{one:08x}", "sample": sample, "completion_ids": [2],
                "completion": say("completion"), "finish_reason": "stop", "seed": 1,
            }
            for one in mine for sample in range(SAMPLES)
        ]  # fmt: skip
        tables.write(folder / "completions" / f"{shard}.parquet", said, tables.COMPLETIONS)
        roles = {0: "chosen", SAMPLES - 1: "rejected"}
        ranked += [
            {
                "prompt_id": row["prompt_id"], "split": split, "sample": row["sample"],
                "length": int(drawn.integers(10, 500)), "finish_reason": "stop",
                "reward": float(drawn.normal() - row["sample"]), "win_probability": 0.5,
                "role": roles.get(row["sample"]),
            }
            for row in said
        ]  # fmt: skip
    tables.write(folder / "ranked.parquet", ranked, tables.RANKED)
    for name in ("preferences", "tokenized"):
        counts = {"kept": prompts, "dropped": {"margin": 2}}
        files.write_json(folder / f"{name}.json", {"splits": {"train": counts}})
    shutil.copy("docs/rewards.png", folder / "rewards.png")


def main():
    parser = section.parser(__doc__)
    parser.add_argument("--policies", type=int, default=5, help="beside the start policy")
    parser.add_argument("--completions", type=int, default=10000, help="of all policies together")
    parser.add_argument("--words", type=int, default=200, help="of a completion, an answer or a verdict")
    args = parser.parse_args()

    pages = [Path("README.md"), *Path("docs").glob("*.md")]
    words = "\n".join(path.read_text("utf-8") for path in pages).split(" ")
    drawn = np.random.default_rng(1)

    def say(kind):
        count = args.words // 8 if kind == "prompt" else args.words
        first = drawn.integers(len(words) - count)
        return " ".join(words[first : first + count])

    policies = ["sft", *(f"dpo-{number}" for number in range(1, args.policies + 1))]
    with tempfile.TemporaryDirectory() as folder:
        flags = experiment(Path(folder), policies, args.completions // args.policies, say)
        page = Path(folder, "report.html")
        command = [
            sys.executable,
            "-m",
            "scripts.report.write_report",
            *flags,
            "--prompts",
            str(args.completions),
        ]
        started = time.perf_counter()
        subprocess.run([*command, "--out", page], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        size = page.stat().st_size
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"| policies | completions | words of each | seconds | CPU seconds | page | memory |\n{'|---' * 7}|"
    )
    print(
        f"| {args.policies} | {args.completions} | {args.words} | {seconds:.1f} | "
        f"{used.ru_utime + used.ru_stime:.1f} | {size / 1e6:.1f} MB | {used.ru_maxrss * 1024 // 10**6} MB |"
    )


if __name__ == "__main__":
    main()

"""Tokenizing pairs: tokenize_preferences beside the published recipe's nine passes over padded texts.

A table of rows/s, ratios by the clock and in CPU time, and sizes, from one process after another. Both begin
with scored completions, five to a prompt, whose best and worst are known, and end with a file of ids:

- `ours`: preferences with the ids that the policy sampled, as build_preferences writes them;
- `ours, from texts`: the same pairs as of an imported dataset, which have no ids yet;
- `published`: as in the REBEL recipe: a filter by the prompt's length and one for each of five completions,
  then prompts padded to 1024 on the left, chosen and rejected to 2048 on the right, saved by `datasets`.

--texts is as in measurements/logps.py, with five responses to a prompt; without it, answers of the embedded
data stand in for them.

    python -m measurements.tokens --texts answers.jsonl
"""

import argparse
import json
import random
import tempfile
from pathlib import Path

import numpy as np

from measurements import pairs as benchmark
from measurements import ranking
from prefline.config import section

WAYS = ("ours", "ours, from texts", "published")
SAMPLES = 5


def make(directory, args):
    """A tokenizer and rows {"prompt", "responses", "rewards"} in `directory`."""
    from transformers import AutoTokenizer, LlamaConfig

    tokenizer = AutoTokenizer.from_pretrained("data/policy", trust_remote_code=False)
    tokenizer = tokenizer.train_new_from_iterator(ranking.corpus(args.texts), 8192)
    tokenizer.model_max_length = benchmark.PROMPT + benchmark.COMPLETION
    tokenizer.save_pretrained(directory)
    LlamaConfig(vocab_size=len(tokenizer)).save_pretrained(directory)
    lines = Path(args.texts or ranking.EMBEDDED).read_text(encoding="utf-8").splitlines()
    rows, drawn = [json.loads(line) for line in lines], random.Random(args.seed)
    if not args.texts:
        dialogues = [[message["content"] for message in row["messages"]] for row in rows]
        said = [texts[-1] for texts in dialogues]
        rows = [{"prompt": texts[0], "responses": drawn.sample(said, SAMPLES)} for texts in dialogues]
    rows = [
        {
            "prompt": row["prompt"],
            "responses": ranking.answers(row["responses"])[:SAMPLES],
            "rewards": [drawn.random() for _ in range(SAMPLES)],
        }
        for row in rows[: args.rows]
    ]
    (Path(directory) / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    return len(rows)


def ours(directory, rows, sampled):
    """{"found": bytes of the file, …}; sampled: whether rows come with ids."""
    from prefline.data import tables
    from prefline.text import chat
    from scripts.tokenize import tokenize_preferences

    tokenizer, preferences = chat.load_tokenizer(directory), []
    for number, row in enumerate(rows):
        messages = [{"role": "user", "content": row["prompt"]}]
        ends = [row["responses"][place] for place in (np.argmax(row["rewards"]), np.argmin(row["rewards"]))]
        pair = dict.fromkeys(tables.PREFERENCES.names) | {
            "prompt_id": str(number),
            "split": "train",
            "messages": messages,
            "chosen": ends[0],
            "rejected": ends[1],
            "chosen_reward": max(row["rewards"]),
            "rejected_reward": min(row["rewards"]),
        }
        if sampled:
            for side in ("chosen", "rejected"):
                ids = chat.prompt_and_completion_ids(tokenizer, messages, pair[side])
                pair["prompt_ids"], pair[f"{side}_ids"] = ids
        preferences.append(pair)
    with tempfile.TemporaryDirectory() as temporary:
        source, out = Path(temporary) / "preferences.parquet", Path(temporary) / "tokenized.parquet"
        tables.write(source, preferences, tables.PREFERENCES)
        flags = {
            "preferences": source,
            "tokenizer": directory,
            "max-prompt-length": benchmark.PROMPT,
            "max-completion-length": benchmark.COMPLETION,
            "out": out,
            "metrics": Path(temporary) / "tokenized.json",
        }
        words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
        made = benchmark.measured(lambda: tokenize_preferences.main(words))
        return made | {"found": out.stat().st_size}


def published(directory, rows):
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    right, left = (
        AutoTokenizer.from_pretrained(directory, trust_remote_code=False, padding_side=side)
        for side in ("right", "left")
    )
    dataset = datasets.Dataset.from_list(rows)

    def ids(tokenizer, role, text, **settings):
        message = [{"role": role, "content": text}]
        return tokenizer.apply_chat_template(message, tokenize=True, return_dict=False, **settings)

    def padded(tokenizer, role, texts, most, **settings):
        sizes = {"padding": "max_length", "max_length": most}
        return [ids(tokenizer, role, text, **sizes, **settings) for text in texts]

    def fits(row, sample):
        return len(ids(right, "assistant", row["responses"][sample])) <= benchmark.COMPLETION

    def work(out):
        kept = dataset.filter(
            lambda row: len(ids(right, "user", row["prompt"], add_generation_prompt=True)) <= benchmark.PROMPT
        )
        for sample in range(SAMPLES):
            kept = kept.filter(fits, fn_kwargs={"sample": sample})
        prompts = [row["prompt"] for row in kept]
        made = padded(left, "user", prompts, benchmark.PROMPT, add_generation_prompt=True)
        kept = kept.add_column("prompt_tokens", made)
        for side, place in (("chosen", np.argmax), ("rejected", np.argmin)):
            texts = [row["responses"][place(row["rewards"])] for row in kept]
            kept = kept.add_column(side, texts)
            kept = kept.add_column(f"{side}_tokens", padded(right, "assistant", texts, benchmark.COMPLETION))
        kept.select_columns(["prompt_tokens", "chosen_tokens", "rejected_tokens"]).save_to_disk(out)

    with tempfile.TemporaryDirectory() as out:
        made = benchmark.measured(lambda: work(out))
        return made | {"found": sum(path.stat().st_size for path in Path(out).rglob("*.arrow"))}


def main():
    parser = section.parser(__doc__)
    parser.add_argument("--texts", help="jsonl with `prompt` and five `responses`")
    parser.add_argument("--rows", type=int, default=805)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        rows = json.loads((Path(args.model) / "rows.json").read_text(encoding="utf-8"))
        if args.measure == "published":
            made = published(args.model, rows)
        else:
            made = ours(args.model, rows, sampled=args.measure == "ours")
        print(f"MEASURED {json.dumps(made)}")
        return
    with tempfile.TemporaryDirectory() as directory:
        number = make(directory, args)
        made = {which: benchmark.in_a_process("measurements.tokens", which, directory) for which in WAYS}
    print(f"{number} rows\n| way | rows/s | ours is faster by | in CPU time by | file | memory |")
    print("|---|---|---|---|---|---|")
    wanted = np.array(made["ours"]["seconds"])
    for which, one in made.items():
        clock, cpu = one["seconds"] / wanted
        size = f"{one['found'] / number / 1e3:.1f} kB a row | {one['megabytes']:.0f} MB"
        print(f"| {which} | {number / one['seconds'][0]:.0f} | {clock:.1f} | {cpu:.1f} | {size} |")


if __name__ == "__main__":
    main()

"""Scoring speed: the project's classifier beside one dialogue at a time, as published code scores them.

A table of dialogues/s, of ratios by the clock and in CPU time (which other work on the machine disturbs
less), and of the largest memory, from one process after another on the same dialogues and weights; loading
is not counted, rendering and tokenizing are. The scores are the same to 1e-4, or the run fails.
The others are

- `one at a time`: apply_chat_template on the dialogue and a forward pass of the whole
  AutoModelForSequenceClassification, as in REBEL's and RLHFlow's rank.py;
- `one at a time, padded`: the same with every dialogue padded to --max-length tokens.

With --texts, dialogues are those of a jsonl file whose lines have a `prompt` and its `responses` (a list,
or a dict by model), so that lengths are real. Without it they are the embedded data's words, at lengths like
those of public prompts and answers: log-normal, 38 and 516 tokens on average. The model is a Llama of random
weights with one head, in float32; its tokenizer is learnt from the texts.

    python -m measurements.ranking
    python -m measurements.ranking --texts answers.jsonl --rounds 3
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from prefline.config import section

WAYS = ("ours", "one at a time", "one at a time, padded")
TOLERANCE = 1e-4
EMBEDDED = Path("data/world/sft_train.jsonl")
MEAN_TOKENS, SPREAD = (38, 516), 0.7  # of prompts and answers


def make_dialogues(args, tokenizer):
    """[(prompt, answer)], str, of at most `args.max_length` tokens together."""
    drawn = random.Random(args.seed)
    if args.texts:
        rows = [json.loads(line) for line in Path(args.texts).read_text(encoding="utf-8").splitlines()]
        found = [(row["prompt"], answer) for row in rows for answer in answers(row["responses"])]
        drawn.shuffle(found)
    else:
        ids = tokenizer(" ".join(corpus(None)), add_special_tokens=False)["input_ids"]

        def words(mean):
            number = max(1, round(drawn.lognormvariate(np.log(mean) - SPREAD**2 / 2, SPREAD)))
            start = drawn.randrange(len(ids))
            return tokenizer.decode([ids[(start + place) % len(ids)] for place in range(number)])

        found = [tuple(words(mean) for mean in MEAN_TOKENS) for _ in range(2 * args.dialogues)]
    lengths = [
        len(tokenizer.apply_chat_template(messages(*one))["input_ids"]) for one in found[: 4 * args.dialogues]
    ]
    fitting = [one for one, length in zip(found, lengths, strict=False) if length <= args.max_length]
    return fitting[: args.dialogues]


def answers(responses):
    return list(responses.values()) if isinstance(responses, dict) else responses


def corpus(path):
    """The texts (list of str) that the tokenizer learns from."""
    lines = Path(path or EMBEDDED).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    if path:
        return [text for row in rows for text in (row["prompt"], *answers(row["responses"]))]
    return [message["content"] for row in rows for message in row["messages"]]


def messages(prompt, answer):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def make_model(directory, args):
    """A sequence classifier of random weights in `directory`; returns its tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained("data/policy", trust_remote_code=False)
    tokenizer = tokenizer.train_new_from_iterator(corpus(args.texts), args.vocabulary)
    tokenizer.model_max_length = args.max_length
    # The project reads a score at the end token, Hugging Face at the last one: a template that ends with the
    # former, as Llama 3's does, is scored alike by both.
    newline = "{{- '\\n' }}\n{%- endfor %}"
    if newline not in tokenizer.chat_template:
        sys.exit("data/policy: the chat template has changed, adapt measurements/ranking.py")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        newline,
        "{%- if not loop.last or add_generation_prompt %}" + newline.replace("}\n", "}{%- endif %}\n"),
    )
    tokenizer.save_pretrained(directory)
    heads = max(args.hidden_size // 64, 1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden_size,
        intermediate_size=4 * args.hidden_size,
        num_hidden_layers=args.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=args.max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
    )
    torch.manual_seed(args.seed)
    model = LlamaForSequenceClassification(config)
    model.save_pretrained(directory)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"a Llama of {args.layers} x {args.hidden_size}, {parameters / 1e6:.1f}M parameters, float32")
    return tokenizer


def clocks():
    """Seconds (float64 array [2]) on the clock and of CPU time."""
    return np.array([time.perf_counter(), time.process_time()])


def ours(directory, dialogues, args):
    """(scores, clocks) of the project's scorer."""
    from prefline import rewards
    from prefline.rewards import scorers

    scorer = scorers.load(directory, args.batch_tokens, "float32")
    began = clocks()
    scores = scorers.score(
        scorer, [rewards.Dialogue([messages(*one)[0]], one[1], "a dialogue") for one in dialogues]
    )
    return scores.tolist(), clocks() - began


def one_at_a_time(directory, dialogues, padding):
    """(scores, clocks) of one dialogue after another; padding: arguments of apply_chat_template."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    model = AutoModelForSequenceClassification.from_pretrained(
        directory, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    ).eval()
    scores, began = [], clocks()
    with torch.no_grad():
        for one in dialogues:
            inputs = tokenizer.apply_chat_template(
                messages(*one), return_tensors="pt", return_dict=True, **padding
            )
            scores.append(model(**inputs).logits.item())
    return scores, clocks() - began


def measure(which, args):
    dialogues = json.loads((Path(args.model) / "dialogues.json").read_text(encoding="utf-8"))
    if which == "ours":
        scores, seconds = ours(args.model, dialogues, args)
    else:
        padding = {"padding": "max_length", "max_length": args.max_length} if "padded" in which else {}
        scores, seconds = one_at_a_time(args.model, dialogues, padding)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"scores": scores, "seconds": seconds.tolist(), "megabytes": memory}


def in_a_process(which, model):
    """What `measure` gives, from a process of its own."""
    command = [sys.executable, "-m", "measurements.ranking", *sys.argv[1:], "--model", model]
    process = subprocess.run([*command, "--measure", which], capture_output=True, text=True, check=False)
    lines = [line for line in process.stdout.splitlines() if line.startswith("MEASURED ")]
    if not lines:
        sys.exit(f"{which}: {process.stderr[-3000:]}")
    return json.loads(lines[-1].removeprefix("MEASURED "))


def main():
    parser = section.parser(__doc__)
    parser.add_argument("--texts", help="jsonl with `prompt` and `responses`; without: the embedded data")
    parser.add_argument("--dialogues", type=int, default=96)
    parser.add_argument("--max-length", type=int, default=2048, help="tokens; longer dialogues are left out")
    parser.add_argument("--batch-tokens", type=int, default=16384, help="as the resource of the rule")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden-size", type=int, default=384)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=1, help="of each, in turns; ratios are medians")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(f"MEASURED {json.dumps(measure(args.measure, args))}")
        return
    with tempfile.TemporaryDirectory() as model:
        tokenizer = make_model(model, args)
        dialogues = make_dialogues(args, tokenizer)
        (Path(model) / "dialogues.json").write_text(json.dumps(dialogues), encoding="utf-8")
        means = [
            np.mean([len(tokenizer(text)["input_ids"]) for text in texts])
            for texts in zip(*dialogues, strict=True)
        ]
        print(f"{len(dialogues)} dialogues, {means[0]:.0f} + {means[1]:.0f} tokens on average")
        measured = {which: [] for which in WAYS}
        for _ in range(args.rounds):
            for which in WAYS:
                measured[which].append(in_a_process(which, model))
    report(measured, len(dialogues))


def report(measured, number):
    """Print the table; exits where scores differ. measured: {way: [what `measure` gives, for each round]}."""
    seconds = {which: np.array([one["seconds"] for one in made]) for which, made in measured.items()}
    wanted = np.array(measured["ours"][0]["scores"])
    if wanted.std() < 100 * TOLERANCE:
        sys.exit("the scores are all alike, which proves nothing")
    print("| way | dialogues/s | ours is faster by | in CPU time by | memory | scores differ by |")
    print("|---|---|---|---|---|---|")
    for which, made in measured.items():
        apart = np.abs(wanted - made[0]["scores"]).max()
        clock, cpu = np.median(seconds[which] / seconds["ours"], axis=0)
        rate, memory = number / seconds[which][:, 0].min(), max(one["megabytes"] for one in made)
        print(f"| {which} | {rate:.2f} | {clock:.2f} | {cpu:.2f} | {memory:.0f} MB | {apart:.0e} |")
        if apart > TOLERANCE:
            sys.exit(f"{which}: scores differ by {apart:.1e}, more than {TOLERANCE}")


if __name__ == "__main__":
    main()

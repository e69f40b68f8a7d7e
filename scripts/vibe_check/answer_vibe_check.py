"""Have a policy answer the prompts of the vibe check, those that the journal has no answer to.

    python -m scripts.vibe_check.answer_vibe_check \\
        --prompts data/world/vibe_check.jsonl --columns '{"prompt": "messages"}' --system null \\
        --model results/models/sft --engine transformers … --dtype float32 --temperature 0.7 \\
        --top-p 1.0 --top-k 0 --max-tokens 64 --seed 1 --journal work/journal \\
        --out results/vibe_check/sft.jsonl

    writes  messages, answer, finish_reason
"""

import json

from prefline import engines, errors, files, seeds
from prefline.config import section
from prefline.data import reading
from prefline.engines import answers, pace


def main(argv=None):
    parser = section.parser(__doc__)
    section.add(parser, "vibe_check")
    parser.add_argument("--model", required=True, help="the policy's directory")
    engines.add(parser)
    pace.add(parser)
    section.add(parser, "seed")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--out", required=True, help="answers (jsonl)")
    args = parser.parse_args(argv)

    rules = {"special_tokens": "as_text", "max_dropped": 0.0}
    data = reading.Data("prompts", args.prompts, args.columns, rules, system=args.system)
    dialogues = [row["messages"] for row in data]
    data.finish()
    if not dialogues:
        raise errors.InputError(f"{args.prompts}: holds no prompt")
    # By the text, not the row: a prompt added in front leaves the answers below as they were.
    draws = [seeds.derive(args.seed, "vibe_check", json.dumps(messages)) for messages in dialogues]
    sampling = engines.Sampling(args.temperature, args.top_p, args.top_k, args.max_tokens)
    settings = section.pick(engines.Settings, vars(args))
    kept = answers.open_journal(
        args.journal, "scripts/vibe_check/answer_vibe_check.py", args.model, settings, sampling
    )

    def load_engine():
        tokens = answers.most_tokens(args.model, dialogues, args.max_tokens)
        return engines.start(args.model, settings, section.pick(pace.Pace, vars(args)), args.seed, tokens)

    answered = answers.answer(
        load_engine,
        kept,
        dialogues,
        draws,
        sampling,
        "vibe_check",
    )
    rows = [
        {"messages": messages, "answer": text, "finish_reason": reason}
        for messages, (text, reason) in zip(dialogues, answered, strict=True)
    ]
    files.write_jsonl(args.out, rows)
    print(f"{len(rows)} prompts answered")


if __name__ == "__main__":
    errors.run(main)

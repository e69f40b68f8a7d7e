"""Write the vibe check: a Markdown page with each prompt and every policy's answer to it, side by side.

    python -m scripts.vibe_check.write_vibe_check --policies sft dpo-1 \\
        --answers results/vibe_check/sft.jsonl results/vibe_check/dpo-1.jsonl --out results/vibe_check.md
"""

from prefline import errors, files
from prefline.config import section
from prefline.data import sources
from prefline.errors import InputError
from prefline.text.markdown import literal

COLUMNS = {name: name for name in ("messages", "answer", "finish_reason")}
TITLE = """# Vibe check

What the policies say to the same prompts. An answer that ends in … was cut off at the token limit.
"""


def side_by_side(number, messages, answers):
    """Return one prompt with its answers. answers: list of (policy, answer, finish_reason)."""
    lines = [f"## {number}", ""]
    for message in messages:
        lines += [f"> **{message['role']}**: {literal(message['content'])}", ">"]
    lines[-1] = ""
    lines += ["| policy | answer |", "| :-- | :-- |"]
    for policy, answer, finish_reason in answers:
        shown = literal(answer) + (" …" if finish_reason == "length" else "")
        lines.append(f"| **{literal(policy)}** | {shown or '*(says nothing)*'} |")
    return "\n".join(lines) + "\n"


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument(
        "--policies", nargs="+", required=True, help="the policies' names, in the order to show"
    )
    parser.add_argument("--answers", nargs="+", required=True, help="their answers, in that order (jsonl)")
    parser.add_argument("--out", required=True, help="the page (Markdown)")
    args = parser.parse_args(argv)
    if len(args.policies) != len(args.answers):
        parser.error("--policies and --answers go together: as many of each")

    answered = [[row for _, row in sources.read_rows(path, COLUMNS)] for path in args.answers]
    prompts = [row["messages"] for row in answered[0]]
    for path, rows in zip(args.answers, answered, strict=True):
        if [row["messages"] for row in rows] != prompts:
            raise InputError(
                f"{path}: answers other prompts than {args.answers[0]}; delete it to have it made again"
            )
    parts = [TITLE]
    for number, messages in enumerate(prompts, 1):
        rows = [policy_rows[number - 1] for policy_rows in answered]
        answers = [
            (policy, row["answer"], row["finish_reason"])
            for policy, row in zip(args.policies, rows, strict=True)
        ]
        parts.append(side_by_side(number, messages, answers))
    files.write_text(args.out, "\n".join(parts))
    print(f"{len(prompts)} prompts, {len(args.policies)} policies")


if __name__ == "__main__":
    errors.run(main)

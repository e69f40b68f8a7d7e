"""Have a policy answer a benchmark's questions, those that the journal has no answer to.

    python -m scripts.benchmarks.answer_benchmark --questions alpaca_eval_gpt4_baseline.json \\
        --form alpaca_eval \\
        --policy sft --model results/models/sft --engine vllm … --dtype bfloat16 --temperature 0.7 \\
        --max-tokens 2048 --seed 1 --journal work/journal --out results/benchmarks/alpaca/answers/sft.jsonl

    writes  the library's own form: alpaca_eval's instruction, output, generator; evalplus's task_id and
            solution; for math question, reference, answer, finish_reason

Problems of EvalPlus are asked as the library asks models with a chat template: it begins their answer.
"""

from prefline import engines, errors, files, seeds
from prefline.config import section
from prefline.data import benchmark_results
from prefline.engines import answers, pace
from prefline.text import chat

# EvalPlus's words.
PROBLEM = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code "
    "block:\n```\n{}\n```\n"
)
BEGUN = {
    "alpaca_eval": "",
    "math": "",
    "evalplus": "Below is a Python script with a self-contained function that solves the problem and passes "
    "corresponding tests:\n```python\n",
}


def prompts(questions, form):
    """Return the text (list of str) that a policy is asked, for rows (list of dict) of a library's `form`."""
    texts = [question[benchmark_results.QUESTION[form]] for question in questions]
    return [PROBLEM.format(text.strip()) for text in texts] if form == "evalplus" else texts


def row(form, question, policy, answer, reason):
    """Return an answer in a library's `form` (dict).

    question: its row; policy: its name; answer, reason: str, the text and why it ended.
    """
    if form == "math":
        asked = {key: question[key] for key in ("question", "reference")}
        return {**asked, "answer": answer, "finish_reason": reason}
    if form == "evalplus":
        return {"task_id": question["task_id"], "solution": answer}
    return {"instruction": question["instruction"], "output": answer, "generator": policy}


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--questions", required=True, help="the library's questions (json or jsonl)")
    parser.add_argument("--form", required=True, choices=BEGUN, help="the library's form")
    parser.add_argument("--policy", required=True, help="the policy's name")
    parser.add_argument("--model", required=True, help="the policy's directory")
    engines.add(parser)
    pace.add(parser)
    section.add(parser, "benchmarks.NAME", "temperature", "max_tokens")
    section.add(parser, "seed")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--out", required=True, help="answers (jsonl)")
    args = parser.parse_args(argv)

    questions = benchmark_results.read_questions(args.questions, args.form)
    asked = prompts(questions, args.form)
    sampling = engines.Sampling(temperature=args.temperature, top_p=1.0, top_k=0, max_tokens=args.max_tokens)
    settings = section.pick(engines.Settings, vars(args))
    if args.form == "math":
        dialogues = [question["messages"] for question in questions]  # with the system message
    else:
        dialogues = [chat.as_messages(text, args.questions) for text in asked]

    def load_engine():
        tokens = answers.most_tokens(args.model, dialogues, args.max_tokens, BEGUN[args.form])
        return engines.start(args.model, settings, section.pick(pace.Pace, vars(args)), args.seed, tokens)

    answered = answers.answer(
        load_engine,
        answers.open_journal(
            args.journal, "scripts/benchmarks/answer_benchmark.py", args.model, settings, sampling
        ),
        dialogues,
        [seeds.derive(args.seed, "benchmark", text) for text in asked],
        sampling,
        "benchmarks.NAME",
        BEGUN[args.form],
    )
    rows = [
        row(args.form, question, args.policy, text, reason)
        for question, (text, reason) in zip(questions, answered, strict=True)
    ]
    files.write_jsonl(args.out, rows)
    cut = sum(reason == "length" for _, reason in answered)
    print(f"{args.policy}: {len(rows)} questions answered, {cut} answers cut off at {args.max_tokens} tokens")


if __name__ == "__main__":
    errors.run(main)

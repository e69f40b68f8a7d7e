"""Have a judge on a server compare a policy's outputs with the references, by AlpacaEval's annotators.

The library owns the judge's prompt, the random order of the two outputs and the reading of the judge's
log-probabilities. This script puts the project's client in the place of the library's: requests are retried
and paced, and each verdict is a row of the journal, so that a restart asks for none twice.

    python -m scripts.benchmarks.annotate_alpaca_eval --references alpaca_eval_gpt4_baseline.json \\
        --answers results/benchmarks/alpaca/answers/dpo-1.jsonl \\
        --annotator weighted_alpaca_eval_gpt4_turbo --concurrency 16 \\
        --endpoint '{"name": "gpt_4", "kind": "openai", …}' --journal work/journal \\
        --out results/benchmarks/alpaca/annotations/dpo-1.jsonl

    writes  annotations in the library's form, in the order of the references; preference is null where the
            judge's answer cannot be read
"""

from typing import NamedTuple

from prefline import errors, files
from prefline.config import section
from prefline.data import benchmark_results
from prefline.errors import InputError
from prefline.provenance import journal
from prefline.servers import endpoint
from prefline.servers.budget import size_of

# What is kept of an annotation.
COLUMNS = ("instruction", "generator_1", "output_1", "generator_2", "output_2", "annotator", "preference")
# Why an answer of the judge may have ended: it is meant to be a single token.
FINISH_REASONS = ("stop", "length")


class Call(NamedTuple):
    """One request to the judge: the messages, and what people call it."""

    messages: list
    name: str


class Judge:
    """What the library calls to have prompts completed: see `__call__`.

    endpoint: endpoint.Endpoint; concurrency: requests in flight; root: work/journal.
    """

    def __init__(self, endpoint, concurrency, root):
        self.endpoint, self.name, self.concurrency, self.root = endpoint, endpoint.model, concurrency, root
        shaped_by = journal.context("prefline/servers/client.py", None, (), judge=self.name)
        self.kept = journal.Journal(root, "annotations", shaped_by, self.name)

    def __call__(self, prompts, max_tokens, temperature, logprobs=False, top_logprobs=None, **_):
        """The library's completions (dict of lists) of `prompts` (list of str in ChatML).

        The other arguments are the annotator's; its model name is not among those that count: the config says
        who judges. Raises InputError if servers give a prompt up, or leave out log-probabilities, and where
        the endpoint's budget is used up.
        """
        from alpaca_eval.utils import prompt_to_chatml

        settings = {"model": self.name, "max_tokens": max_tokens, "temperature": temperature}
        if logprobs:
            settings |= {"logprobs": True, "top_logprobs": top_logprobs}
        calls = {
            journal.key(prompt, settings): Call(prompt_to_chatml(prompt), f"annotation {number}")
            for number, prompt in enumerate(prompts)
        }
        meter, failures = self.endpoint.meter(max_tokens, self.root), []
        with meter.alone():
            choices = self.kept.rows(
                calls, lambda missing: self._ask(missing, settings, logprobs, meter, failures)
            )
        open_calls = [{"messages": call.messages} for key, call in calls.items() if key not in choices]
        self.endpoint.check_budget(meter, failures, [size_of(call) for call in open_calls])
        if open_calls:
            raise InputError(
                f"the judge's servers give up {len(open_calls)} of {len(calls)} annotations; start again "
                "later: those that are done are kept"
            )
        ordered = [choices[journal.key(prompt, settings)] for prompt in prompts]
        return {
            "completions": [choice["message"]["content"] or "" for choice in ordered],
            "completions_all": ordered,
            "price_per_example": [float("nan")] * len(prompts),
            "time_per_example": [float("nan")] * len(prompts),
        }

    def _ask(self, missing, settings, logprobs, meter, failures):
        """Yield {key: choice} as they end; `failures` (list) gets the exceptions of what is given up."""
        from prefline.servers.client import Client, Transient, only_choice

        asked = self.endpoint
        client = Client(asked.urls, self.concurrency, asked.timeout, **asked.client(meter))

        def read(body):
            choice = only_choice(body, FINISH_REASONS)
            if not isinstance(choice.get("message"), dict):
                raise Transient("an answer without a message")
            if logprobs and not (choice.get("logprobs") or {}).get("content"):
                raise InputError(
                    f"the judge {self.name!r} gives no log-probabilities, which the annotator reads; take a "
                    "judge that does, or another annotator"
                )
            return {name: choice.get(name) for name in ("message", "logprobs", "finish_reason")}

        try:
            client.check_model(self.name, asked.section)
            keys = list(missing)
            requests = list(missing.values())
            for index, choice in client.each(
                lambda call: client.post("/chat/completions", {**settings, "messages": call.messages}, read),
                requests,
            ):
                if choice is not None:
                    yield {keys[index]: choice}
        finally:
            failures += [failure for _, failure in client.given_up]
            client.close()


def annotate(references, answers, annotator, judge):
    """Annotations (list of dict, in the references' order) of each answer against its reference.

    references, answers: rows with instruction, output, generator; annotator: a name of the library's
    configurations; judge: Judge, in the place of what they call. A preference is between 1 (the reference is
    better) and 2.
    """
    import pandas
    from alpaca_eval.annotators.pairwise_evaluator import PairwiseAnnotatorLocal

    try:
        library = PairwiseAnnotatorLocal(annotators_config=annotator, is_avoid_reannotations=False)
    except FileNotFoundError:
        raise InputError(f"alpaca_eval has no annotator {annotator!r}") from None
    for single in library.annotators.values():
        single.fn_completions = judge
    columns = ["instruction", "output", "generator"]
    return library.annotate_head2head(
        outputs_1=pandas.DataFrame(references)[columns], outputs_2=pandas.DataFrame(answers)[columns]
    )


def written(annotation):
    """The row (dict) of an annotation; what cannot be read is no number, and null in the file."""
    row = {name: annotation.get(name) for name in COLUMNS}
    readable = row["preference"] is not None and row["preference"] == row["preference"]
    return row | {"preference": float(row["preference"]) if readable else None}


def check_answers(references, answers):
    """Raise InputError unless there is one answer to each instruction of the references."""
    wanted = [row["instruction"] for row in references]
    given = [row["instruction"] for row in answers]
    if sorted(wanted) != sorted(given):
        missing = next((text for text in wanted if text not in given), given[0] if given else "")
        raise InputError(f"the answers are not one for each instruction; see {missing!r:.60}")


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--references", required=True, help="outputs to compare with (json or jsonl)")
    parser.add_argument("--answers", required=True, help="the policy's outputs (jsonl)")
    section.add(parser, "benchmarks.NAME", "annotator")
    parser.add_argument("--endpoint", type=endpoint.read, required=True, help="who judges, JSON")
    parser.add_argument("--concurrency", type=int, required=True, help="most requests in flight")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--out", required=True, help="annotations (jsonl)")
    args = parser.parse_args(argv)

    references = benchmark_results.read_questions(args.references, "alpaca_eval")
    answers = benchmark_results.read_questions(args.answers, "alpaca_eval")
    check_answers(references, answers)
    judge = Judge(args.endpoint, args.concurrency, args.journal)
    annotations = annotate(references, answers, args.annotator, judge)
    files.write_jsonl(args.out, [written(one) for one in annotations])
    print(f"{len(annotations)} annotations by {judge.name}")


if __name__ == "__main__":
    errors.run(main)

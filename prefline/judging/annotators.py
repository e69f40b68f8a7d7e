"""Compare outputs with references by AlpacaEval's annotators, whose client is replaced by the project's."""

from prefline.errors import InputError
from prefline.provenance import journal
from prefline.servers import conversation
from prefline.servers.budget import OverBudget, size_of
from prefline.servers.replies import Lost, only_choice, text_of
from prefline.text.verdicts import without_reasoning

# Names the requests and what is cached of the answers; see prefline.engines.asking.REQUESTS.
REQUESTS = "4b8a0733bd9661e53be9c368f1f004b2"


# Arguments of an annotator that its requests carry, and those that are about the library's own client.
SENT = {"max_tokens", "temperature", "logprobs", "top_logprobs"}
OF_CLIENT = {"model_name", "price_per_token", "client_kwargs", "requires_chatml", "is_chatml_prompt"}


class Conversation(conversation.Conversation):
    """Asks for completions as annotators do: without a seed, and with log-probabilities if they read them.

    more: dict, the fields of every request for log-probabilities.
    """

    first = conversation.Form("max_tokens", 0)

    def __init__(self, *args, more, **client):
        self.more = more
        super().__init__(*args, **client)

    def _payload(self, request, form):
        return super()._payload(request, form) | self.more

    def read(self, body):
        """Return the choice (dict) of a server's answer; Lost for others, InputError without logprobs."""
        choice = only_choice(body)
        if not isinstance(choice.get("message"), dict):
            raise Lost("an answer without a message")
        if self.more and not (choice.get("logprobs") or {}).get("content"):
            raise InputError(
                f"the judge {self.name!r} gives no log-probabilities, which the annotator reads; take a "
                "judge that does, or another annotator"
            )
        content = text_of(choice["message"].get("content"))
        return {
            "message": choice["message"] | {"content": content},
            "logprobs": choice.get("logprobs"),
            "finish_reason": choice["finish_reason"],
        }


class Judge:
    """The client that the library calls to complete prompts: see `__call__`.

    endpoint: endpoint.Endpoint; concurrency: requests in flight; root: work/journal.
    """

    def __init__(self, endpoint, concurrency, root):
        self.endpoint, self.name, self.concurrency, self.root = endpoint, endpoint.model, concurrency, root
        self.form = endpoint.form  # or what the first call found
        shaped_by = journal.context("prefline/servers/client.py", None, (), judge=self.name)
        if endpoint.form is not None:
            shaped_by["form"] = endpoint.form
        if endpoint.extra_body:
            shaped_by["extra_body"] = endpoint.extra_body
        self.kept = journal.Journal(root, "annotations", shaped_by | {"code": REQUESTS}, self.name)

    def __call__(self, prompts, max_tokens, temperature, logprobs=False, top_logprobs=None, **_):
        """Return the library's completions (dict of lists) of `prompts` (list of str in ChatML).

        The other arguments are OF_CLIENT. Raises InputError if servers give a prompt up or leave out
        log-probabilities, or if the endpoint's budget is used up.
        """
        from alpaca_eval.utils import prompt_to_chatml

        settings = {"model": self.name, "max_tokens": max_tokens, "temperature": temperature}
        more = {"logprobs": True, "top_logprobs": top_logprobs} if logprobs else {}
        try:
            calls = {
                journal.key(prompt, settings | more): conversation.Request(
                    prompt_to_chatml(prompt.strip()), temperature, 0, f"annotation {number}"
                )
                for number, prompt in enumerate(prompts)
            }
        except (AssertionError, ValueError):
            raise InputError(
                "the annotator's prompt is for models that are no chat models; take another annotator"
            ) from None
        meter, failures = self.endpoint.meter(max_tokens, self.root), []
        with meter.alone():
            choices = self.kept.rows(
                calls, lambda missing: self._ask(missing, max_tokens, more, meter, failures)
            )
        open_calls = [{"messages": call.messages} for key, call in calls.items() if key not in choices]
        self.endpoint.check_budget(meter, failures, [size_of(call) for call in open_calls])
        if open_calls:
            raise InputError(
                f"the judge's servers give up {len(open_calls)} of {len(calls)} annotations; start again "
                "later, as finished ones are cached"
            )
        ordered = [choices[journal.key(prompt, settings | more)] for prompt in prompts]
        return {
            "completions": [
                choice["message"]["content"]
                if logprobs
                else without_reasoning(choice["message"]["content"] or "") or ""
                for choice in ordered
            ],
            "completions_all": ordered,
            "price_per_example": [float("nan")] * len(prompts),
            "time_per_example": [float("nan")] * len(prompts),
        }

    def _ask(self, missing, max_tokens, more, meter, failures):
        """Yield {key: choice} as they end; `failures` (list) gets the exceptions of what is given up."""
        asked, keys = self.endpoint, list(missing)
        try:
            judge = Conversation(
                asked.urls,
                self.name,
                max_tokens,
                self.concurrency,
                asked.timeout,
                asked.section,
                self.form,
                more=more,
                **asked.client(meter),
            )
        except OverBudget as failure:
            failures.append(failure)
            return
        self.form = str(judge.form)
        try:
            for index, choice in judge.answers(list(missing.values())):
                if choice is not None:
                    yield {keys[index]: choice}
        finally:
            failures += [failure for _, failure in judge.client.given_up]
            judge.close()


def annotate(references, answers, annotator, judge):
    """Return annotations (list of dict, in the references' order) of each answer against its reference.

    references, answers: rows with instruction, output, generator; annotator: a name of the library's
    configurations; judge: Judge, which replaces their client. A preference is between 1 (the reference is
    better) and 2.
    """
    import pandas
    from alpaca_eval.annotators.pairwise_evaluator import PairwiseAnnotatorLocal

    try:
        library = PairwiseAnnotatorLocal(annotators_config=annotator, is_avoid_reannotations=False)
    except FileNotFoundError:
        raise InputError(f"alpaca_eval has no annotator {annotator!r}") from None
    except ImportError as error:
        raise InputError(
            f"the annotator {annotator!r} needs a package that is not here ({error}); take another annotator"
        ) from None
    for single in library.annotators.values():
        given = single.completions_kwargs.keys()
        missing, foreign = {"max_tokens", "temperature"} - given, given - SENT - OF_CLIENT
        if missing or foreign:
            has = f"has {min(foreign)!r}" if foreign else f"lacks {min(missing)!r}"
            raise InputError(
                f"the annotator {annotator!r} asks for more than the text of a chat completion: its "
                f"configuration {has}; take another annotator"
            )
        single.fn_completions = judge
    columns = ["instruction", "output", "generator"]
    return library.annotate_head2head(
        outputs_1=pandas.DataFrame(references)[columns], outputs_2=pandas.DataFrame(answers)[columns]
    )

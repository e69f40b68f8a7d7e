"""Ask a language model until its answer can be read; each answer is a row of the journal.

It is asked at temperature 0. An answer that cannot be read is asked for again at temperature 0.7, up to three
times, with a new seed each time: at temperature 0 it would be the same. After that it has no value.
"""

import time
from dataclasses import dataclass
from typing import NamedTuple

from prefline import engines, seeds
from prefline.engines.model_files import ModelFiles
from prefline.provenance import journal
from prefline.servers.budget import OverBudget, size_of
from prefline.servers.conversation import Answer, Anthropic, Conversation, Request
from prefline.unicode import valid

# Temperature of each try.
TEMPERATURES = (0.0, 0.7, 0.7, 0.7)
# Answers of a first round from which on it is no bad luck if none of them can be read.
HOPELESS = 16
# Tokens that a server's chat template may write beyond those it writes here, such as today's date.
TEMPLATE_SLACK = 64
# Seconds between two lines of progress.
INTERVAL = 10.0
# Names the requests to servers elsewhere and what is cached of their answers. It replaces the code's hash,
# whose value it was: an edit that changes neither must not cost the answers again.
REQUESTS = "55a604427244713e89debd8b49b501e6"
KINDS = {"openai": Conversation, "anthropic": Anthropic, "vllm": Conversation}


class Question(NamedTuple):
    """A question to a model: messages (list of {"role", "content"}), and its name for people."""

    messages: list
    name: str


@dataclass(frozen=True)
class Settings:
    """The settings of all answers.

    model: the model's directory, where the job serves it, else ""; max_tokens: longest answer; seed: of the
    experiment.
    """

    model: str
    max_tokens: int
    seed: int


def context(settings, endpoint):
    """Return the journal's context of all answers; the question and its seed name the row.

    Answers from servers elsewhere may cost money: of the code, only REQUESTS counts for them.
    """
    shared = {"name": endpoint.model, "max_tokens": settings.max_tokens}
    shared |= {"kind": endpoint.kind, "form": endpoint.form}
    if endpoint.extra_body:
        shared["extra_body"] = endpoint.extra_body
    if endpoint.urls:
        counted = journal.context("prefline/servers/conversation.py", None, (), **shared)
        return counted | {"code": REQUESTS}
    packages = engines.packages("server")
    return journal.context(
        "prefline/engines/asking.py", settings.model, packages, dtype=endpoint.dtype, **shared
    )


class Asked:
    """The model behind an endpoint; one of the kind vllm is served by the job from the first question on.

    settings: Settings; pace: pace.Pace; texts: list of str, all that it may be asked, which is what the
    context of the job's own server is made for.
    """

    def __init__(self, settings, pace, texts):
        self.settings, self.pace, self.texts, self.endpoint = settings, pace, texts, pace.endpoint
        self.meter = self.endpoint.meter(settings.max_tokens, pace.journal)
        self.local = self.conversation = None
        self.failures = []  # of the first request, the trial

    def until_read(self, questions, read, kept):
        """Return until_read's result for `questions`, with the answers in `kept` (Journal).

        Raises InputError where the endpoint's budget is used up.
        """
        with self.meter.alone():
            values, reasons, answers = until_read(
                questions, read, lambda wanted: kept.rows(wanted, self._answers), self.settings.seed
            )
        failures = [*self.failures, *(failure for _, failure in self.given_up())]
        self.endpoint.check_budget(
            self.meter, failures, sizes_of(one for key, one in questions.items() if key not in values)
        )
        return values, reasons, answers

    def given_up(self):
        """Return (Request, exception) of what the servers gave up."""
        return [] if self.conversation is None else self.conversation.client.given_up

    def close(self):
        """End the connections, and the server if it is the job's own."""
        if self.conversation is not None:
            self.conversation.close()
        if self.local is not None:
            self.local.close()

    def _answers(self, wanted):
        """Yield {key: Answer} as they end, for {key: Request}, without those that the servers give up."""
        try:
            if self.conversation is None:
                self._open()
        except OverBudget as failure:
            self.failures.append(failure)
            return
        keys, printed = list(wanted), time.monotonic()
        answers = self.conversation.answers(list(wanted.values()))
        for done, (index, answer) in enumerate(answers, 1):
            if answer is not None:
                yield {keys[index]: answer}
            if done == len(keys) or time.monotonic() > printed + INTERVAL:
                printed = time.monotonic()
                print(f"{done} of {len(keys)} verdicts", flush=True)

    def _open(self):
        endpoint, client = self.endpoint, self.endpoint.client(self.meter)
        urls = endpoint.urls
        if not urls:
            self.local = self._serve()
            urls, client = [self.local.url], client | {"key": self.local.key, "check": self.local.check}
        self.conversation = KINDS[endpoint.kind](
            urls,
            endpoint.model,
            self.settings.max_tokens,
            self.pace.batch_size,
            endpoint.timeout,
            endpoint.section,
            endpoint.form,
            **client,
        )

    def _serve(self):
        from prefline.engines.local_server import serve

        settings, files = self.settings, ModelFiles(self.settings.model)
        vllm = self.pace.of_vllm() | limits(settings.max_tokens, files, self.texts)
        return serve(
            files, self.endpoint.model, self.pace.batch_size, self.endpoint.dtype, settings.seed, **vllm
        )


def sizes_of(questions):
    """Return bytes (list of int) that the questions (Question) take."""
    return [size_of({"messages": question.messages}) for question in questions]


def limits(max_tokens, files, texts):
    """Return vLLM's engine arguments (dict) for a model's `files` (ModelFiles) and `texts` (list of str)."""
    from prefline.text import chat

    longest = max(map(len, files.tokenizer(texts, add_special_tokens=False)["input_ids"]))
    template = len(chat.prompt_ids(files.tokenizer, [{"role": "user", "content": "a"}]))
    return {
        "max_model_len": 0,
        "tokens": longest + template + TEMPLATE_SLACK + max_tokens,
        "quantization": None,
        "kv_cache_dtype": "auto",
        "enforce_eager": False,
    }


def requests(questions, number, seed):
    """Return {journal's key: Request} of the try `number` of `questions` ({id: Question}), in their order."""
    wanted = {}
    for name, question in questions.items():
        temperature, drawn = TEMPERATURES[number], seeds.derive(seed, "verdict", name, number)
        key = journal.key(name, temperature, drawn)
        wanted[key] = Request(question.messages, temperature, drawn, question.name)
    return wanted


def until_read(questions, read, ask, seed):
    """Return ({id: value}, {id: reason for none}, {id: last Answer}) for questions ({id (str): Question}).

    read(Answer): the value, or None if it cannot be read; ask({key: Request}): {key: Answer, as a list too},
    without those given up; seed: int, of the experiment.
    """
    values, reasons, answers, waiting = {}, {}, {}, dict(questions)
    for number in range(len(TEMPERATURES)):
        wanted = requests(waiting, number, seed)
        found, unread = ask(wanted), {}
        for name, key in zip(waiting, wanted, strict=True):
            if key not in found:
                reasons[name] = "given up by the server"
                continue
            answers[name] = answer = Answer(*valid(list(found[key])))
            value = read(answer)
            if value is None:
                reasons[name] = f"{answer.text[-80:]!r} ({answer.finish_reason})"
                unread[name] = questions[name]
            else:
                values[name] = value
        waiting = unread
        if not waiting or (not values and len(questions) >= HOPELESS):
            break
    return values, {name: reason for name, reason in reasons.items() if name not in values}, answers

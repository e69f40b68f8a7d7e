"""Conversations with a language model behind servers with /v1/chat/completions: messages in, text out.

For models that judge, here or hosted: the chat template is the server's affair, and so is its one BOS.
Servers differ in two fields of a request: some know no `seed`, and some call `max_tokens` by its newer name.
Which form they take is found out before the first request, with a plain one. What they refuse altogether is
said in their words.
"""

import itertools
from typing import NamedTuple

from scripts.common.engines.client import Client, Refused, Transient, only_choice
from scripts.common.errors import InputError

# The name of the longest answer, and whether a seed is sent; what is tried first comes first.
FORMS = tuple(itertools.product(("max_tokens", "max_completion_tokens"), (True, False)))
FINISH_REASONS = ("stop", "length", "content_filter")


class Request(NamedTuple):
    """One answer wanted.

    messages: list of {"role", "content"}; temperature: 0 takes the likeliest token; seed: int, of its draws;
    name: what messages to people call it.
    """

    messages: list
    temperature: float
    seed: int
    name: str


class Answer(NamedTuple):
    """What the model says, and why it ended: one of FINISH_REASONS. The text may be empty."""

    text: str
    finish_reason: str


class Conversation:
    """The model `name` on `servers` (list of str, URLs up to /v1), which share the requests.

    max_tokens: longest answer; concurrency: most requests in flight; timeout: seconds to wait for an answer;
    section: of the config, for messages; pace: see client.Client, the key included. Raises InputError for a
    server that is not there, has no such model, or refuses a plain request or the key.
    """

    def __init__(self, servers, name, max_tokens, concurrency, timeout, section, **pace):
        self.name, self.max_tokens = name, max_tokens
        self.client = Client(servers, concurrency, timeout, **pace)
        try:
            self.client.check_model(name, section)
            self.form = self._find_form()
        except BaseException:
            self.close()
            raise

    def answers(self, requests):
        """(index, Answer) for a list of `Request`, as they end; (index, None) for what a server gives up.

        Raises InputError for servers that fail at everything.
        """
        yield from self.client.each(lambda request: self._ask(request, self.form), requests)

    def close(self):
        self.client.close()

    def _find_form(self):
        trial = Request([{"role": "user", "content": "Say yes."}], 0.0, 0, "a trial")
        said = []
        for form in FORMS:
            try:
                self._ask(trial, form)
                return form
            except Refused as refused:
                said.append(str(refused))
            except Transient as failure:
                raise InputError(f"the server answers no request: {failure}") from None
        said = "; or, asked in another way: ".join(dict.fromkeys(said))
        raise InputError(f"the server refuses a plain request for {self.name!r}: {said}")

    def _ask(self, request, form):
        """The Answer; Transient or Refused, see `Client.post`."""
        limit, seeded = form
        payload = {
            "model": self.name,
            "messages": request.messages,
            "temperature": request.temperature,
            limit: self.max_tokens,
        }
        if seeded:
            payload["seed"] = request.seed
        return self.client.post("/chat/completions", payload, read)


def read(body):
    """The Answer (JSON object) of a server; Transient if it is not one answer that has ended.

    A model that only thinks, or refuses, may leave the text out.
    """
    choice = only_choice(body, FINISH_REASONS)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else 0
    if text is not None and not isinstance(text, str):
        raise Transient("an answer without text")
    return Answer(text or "", choice["finish_reason"])

"""Conversations with a language model behind servers: messages in, text out.

`Conversation` speaks /v1/chat/completions, as OpenAI, vLLM and most others do, `Anthropic` /v1/messages.

For models that judge, here or hosted: the chat template is the server's affair, and so is its one BOS.
Servers differ in two fields of a request: some know no `seed`, and some call `max_tokens` by its newer name.
Which form they take is found out before the first request, with a plain one. What they refuse altogether is
said in their words.
"""

from typing import NamedTuple

from prefline.errors import InputError
from prefline.servers.budget import tokens_of
from prefline.servers.client import Client, Refused, Transient, only_choice

# The name of the longest answer, and whether a seed is sent, by the config's names; what is tried first comes
# first.
FORMS = {
    "max_tokens+seed": ("max_tokens", True),
    "max_tokens": ("max_tokens", False),
    "max_completion_tokens+seed": ("max_completion_tokens", True),
    "max_completion_tokens": ("max_completion_tokens", False),
}
FINISH_REASONS = ("stop", "length", "content_filter")
ANTHROPIC_VERSION = "2023-06-01"
# Anthropic's reasons, in OpenAI's words.
STOP_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


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
    """What the model says, and why it ended: one of FINISH_REASONS. The text may be empty.

    input_tokens, output_tokens: int, as the server counts them; None if it does not say.
    """

    text: str
    finish_reason: str
    input_tokens: int | None = None
    output_tokens: int | None = None


class Conversation:
    """The model `name` on `servers` (list of str, URLs up to /v1), which share the requests.

    max_tokens: longest answer; concurrency: most requests in flight; timeout: seconds to wait for an answer;
    section: of the config, for messages; form: of FORMS, None for the one that a trial finds; client: see
    client.Client, the key included. Raises InputError for a server that is not there, has no such model, or
    refuses a plain request or the key.
    """

    path, forms, headers = "/chat/completions", tuple(FORMS.values()), None

    def __init__(self, servers, name, max_tokens, concurrency, timeout, section, form=None, **client):
        self.name, self.max_tokens = name, max_tokens
        self.client = Client(servers, concurrency, timeout, headers=self.headers, **client)
        try:
            self._check_model(section)
            self.form = FORMS[form] if form else self._find_form()
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

    def _check_model(self, section):
        self.client.check_model(self.name, section)

    def _find_form(self):
        trial = Request([{"role": "user", "content": "Say yes."}], 0.0, 0, "a trial")
        said = []
        for form in self.forms:
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
        return self.client.post(self.path, self._payload(request, form), self.read)

    def _payload(self, request, form):
        limit, seeded = form
        payload = {
            "model": self.name,
            "messages": request.messages,
            "temperature": request.temperature,
            limit: self.max_tokens,
        }
        if seeded:
            payload["seed"] = request.seed
        return payload

    def read(self, body):
        """The Answer (JSON object) of a server; Transient if it is not one answer that has ended.

        A model that only thinks, or refuses, may leave the text out.
        """
        choice = only_choice(body, FINISH_REASONS)
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else 0
        if text is not None and not isinstance(text, str):
            raise Transient("an answer without text")
        return Answer(text or "", choice["finish_reason"], *tokens_of(body.get("usage")) or ())


class Anthropic(Conversation):
    """The same with Anthropic's API: the system message apart, no seed, and names of its own."""

    path, forms = "/messages", (None,)

    @staticmethod
    def headers(key):
        return {"x-api-key": key, "anthropic-version": ANTHROPIC_VERSION}

    def _check_model(self, section):
        """The API lists its models in pages and knows them by several names: the first request will tell."""

    def _payload(self, request, form):
        system = [message["content"] for message in request.messages if message["role"] == "system"]
        payload = {
            "model": self.name,
            "messages": [message for message in request.messages if message["role"] != "system"],
            "temperature": request.temperature,
            "max_tokens": self.max_tokens,
        }
        return payload | ({"system": system[0]} if system else {})

    def read(self, body):
        blocks, reason = body.get("content"), STOP_REASONS.get(body.get("stop_reason"))
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise Transient("an answer without text")
        if reason is None:
            raise Transient(f"an answer with the stop_reason {body.get('stop_reason')!r}")
        texts = [block.get("text") for block in blocks if block.get("type") == "text"]
        if not all(isinstance(text, str) for text in texts):
            raise Transient("an answer without text")
        return Answer("".join(texts), reason, *tokens_of(body.get("usage")) or ())

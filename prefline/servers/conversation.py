"""Conversations with a language model behind servers: messages in, text out.

`Conversation` speaks /v1/chat/completions, as OpenAI, vLLM and most others do, `Anthropic` /v1/messages.

For models that judge, here or hosted: the chat template is the server's affair, and so is its one BOS.
Servers differ in the fields of a request: some know no `seed`, or only short ones, some call `max_tokens` by
its newer name, and some models refuse `temperature`. A trial request finds the form that they accept, by the
field that a refusal names. If they refuse every form, the error quotes them.
"""

import re
from typing import NamedTuple

from prefline.errors import InputError
from prefline.servers import replies
from prefline.servers.budget import tokens_of
from prefline.servers.client import Client, listed
from prefline.servers.replies import Lost, Missing, Refused, Transient


class Form(NamedTuple):
    """The fields of a request.

    limit: name of the longest answer; seed: whether a seed is sent, and its bits; temperature: whether it is
    sent; neutral: whether NEUTRAL and top_p are.
    """

    limit: str
    seed: int
    temperature: bool = True
    neutral: bool = False

    def __str__(self):
        seed = {0: "", 63: "+seed"}.get(self.seed, f"+seed{self.seed}")
        return self.limit + seed + ("" if self.temperature else "-temperature")


# By the config's names; what is tried first comes first.
FORMS = {
    str(form): form
    for temperature in (True, False)
    for limit in ("max_tokens", "max_completion_tokens")
    for seed in (63, 31, 0)
    for form in [Form(limit, seed, temperature)]
}
LIMITS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
# Trials of one server, the first included.
MOST_TRIALS = 5
# A refusal that is about the seed's size.
TOO_LARGE = re.compile(r"32|int|range|maximum|less than|too (large|big)|exceed|out of", re.IGNORECASE)
# Values that change nothing. These servers fill in what a request leaves open from the model's
# generation_config.json.
FILL_IN = ("vllm", "sglang")
NEUTRAL = {
    "top_k": -1,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
}
OF_NEUTRAL = re.compile("|".join(NEUTRAL), re.IGNORECASE)
ANTHROPIC_VERSION = "2023-06-01"


class Request(NamedTuple):
    """One answer wanted.

    messages: list of {"role", "content"}; temperature: 0 takes the likeliest token; seed: int, of its draws;
    name: what messages to people call it.
    """

    messages: list
    temperature: float
    seed: int
    name: str


TRIAL = Request([{"role": "user", "content": "Say yes."}], 0.0, 2**62 + 1, "a trial")


class Answer(NamedTuple):
    """The model's text, and why it ended: see replies.finish_reason. The text may be empty.

    input_tokens, output_tokens: int, as the server counts them; None if it does not say.
    """

    text: str
    finish_reason: str
    input_tokens: int | None = None
    output_tokens: int | None = None


class Conversation:
    """The model `name` on `servers` (list of str, URLs up to /v1), which share the requests.

    max_tokens: longest answer; concurrency: most requests in flight; timeout: seconds to wait for an answer;
    section: of the config, for messages; form: name of FORMS, None for the one that a trial finds; client:
    see client.Client, the key included. Raises InputError for a server that is not there, has no such model,
    or refuses a plain request or the key.
    """

    path, first, headers = "/chat/completions", Form("max_tokens", 63), None

    def __init__(self, servers, name, max_tokens, concurrency, timeout, section, form=None, **client):
        self.name, self.max_tokens = name, max_tokens
        self.client = Client(servers, concurrency, timeout, headers=self.headers, **client)
        try:
            self.listed = self.client.models(section)
            neutral = bool(self.client.owners.intersection(FILL_IN))
            self.form = (FORMS[form] if form else self.first)._replace(neutral=neutral)
            if form is None:
                self.form = self._find_form(self.form, section)
        except BaseException:
            self.close()
            raise

    def answers(self, requests):
        """Yield (index, Answer) of each `Request` as it ends; (index, None) if a server gives it up.

        Raises InputError for servers that fail at everything.
        """
        yield from self.client.each(
            lambda request: self._ask(request, self.form), requests, trial=lambda: self._ask(TRIAL, self.form)
        )

    def close(self):
        self.client.close()

    def _find_form(self, form, section):
        """Return the first Form that the servers take, beginning with `form`; each is asked at least once."""
        for server, names in zip(self.client.servers, self.listed, strict=True):
            hint = f"; it lists only {listed(names)}" if names and self.name not in names else ""
            tried, said = set(), []
            while form is not None:
                try:
                    self._ask(TRIAL, form, server)
                    break
                except Refused as refused:
                    tried.add(form)
                    said.append(str(refused))
                    form = self._next(form, said[-1].lower(), tried) if len(tried) < MOST_TRIALS else None
                except Transient as failure:
                    raise InputError(f"the server answers no request: {failure}") from None
                except Missing as error:
                    if not hint:
                        raise
                    raise InputError(
                        f"{server.url}: the server has no model {self.name!r}, only {listed(names)}; serve "
                        f"it under that name (--served-model-name), or set {section}.model; it says: {error}"
                    ) from None
            if form is None:
                said = "; or, asked in another way: ".join(dict.fromkeys(said))
                raise InputError(f"the server refuses a plain request for {self.name!r}: {said}{hint}")
        if str(form) != str(self.first):
            print(f"{section}: the servers take requests of the form {form}", flush=True)
        return form

    def _next(self, form, told, tried):
        """Return the Form to try after a refusal: without what it names; None if none is left.

        told: str in lower case, the refusal; tried: set of Form. The temperature matters to the
        answers, so it is left out last, and only if it is named.
        """
        bits = 31 if form.seed > 31 and TOO_LARGE.search(told) else 0
        changes = [
            (OF_NEUTRAL.search(told), form._replace(neutral=False)),
            ("seed" in told, form._replace(seed=bits)),
            ("max_" in told, form._replace(limit=LIMITS[form.limit])),
            ("temperature" in told, form._replace(temperature=False)),
            (True, form._replace(seed=0)),
            (True, form._replace(limit=LIMITS[form.limit])),
        ]
        return next((one for named, one in changes if named and one not in tried), None)

    def _ask(self, request, form, server=None):
        """Return the Answer; Transient or Refused, see `Client.post`."""
        return self.client.post(self.path, self._payload(request, form), self.read, server)

    def _payload(self, request, form):
        payload = {"model": self.name, "messages": request.messages}
        if form.temperature:
            payload["temperature"] = request.temperature
        payload[form.limit] = self.max_tokens
        if form.seed:
            payload["seed"] = request.seed % 2**form.seed
        if form.neutral:
            payload |= NEUTRAL | {"top_p": 1.0}
        return payload

    def read(self, body):
        """Return the Answer (JSON object) of a server; Lost if it is not one answer that has ended.

        A model that only thinks, or refuses, may leave the text out.
        """
        choice = replies.only_choice(body)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise Lost("an answer without text")
        text = replies.text_of(message.get("content"))
        return Answer(text, choice["finish_reason"], *tokens_of(body.get("usage")) or ())


class Anthropic(Conversation):
    """The same with Anthropic's API: a separate system message, no seed, and other field names."""

    path, first = "/messages", Form("max_tokens", 0)

    @staticmethod
    def headers(key):
        return {"x-api-key": key, "anthropic-version": ANTHROPIC_VERSION}

    def _next(self, form, told, tried):
        return form._replace(temperature=False) if "temperature" in told and form.temperature else None

    def _payload(self, request, form):
        system = [message["content"] for message in request.messages if message["role"] == "system"]
        payload = {
            "model": self.name,
            "messages": [message for message in request.messages if message["role"] != "system"],
            "max_tokens": self.max_tokens,
        }
        if form.temperature:
            payload["temperature"] = request.temperature
        return payload | ({"system": system[0]} if system else {})

    def read(self, body):
        blocks = body.get("content")
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise Lost("an answer without text")
        text = replies.text_of(blocks)
        reason = replies.finish_reason(body.get("stop_reason"), bool(text))
        return Answer(text, reason, *tokens_of(body.get("usage")) or ())

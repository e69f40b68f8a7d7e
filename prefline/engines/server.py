"""The `server` engine: any server with OpenAI's /v1/completions, or several that share the requests.

Prompts go in as ids and completions come back as ids where the server knows how (vLLM). Where it gives text
only, the text is tokenized again, and the report counts completions whose number of tokens is then not the
server's: such ids are near what the policy said, not what it said. A server that takes no ids gets text, and
must count as many prompt tokens as the prompt has, or it put in a BOS of its own.

Without URLs, the job starts vLLM's server for its policy and stops it at the end. The server must call the
model by the policy's name (the name of its directory) or as the config says: a server that serves another
model would answer, too.
"""

import atexit
import time
from pathlib import Path

from prefline.engines import Base, Completion, completion
from prefline.engines.local_server import serve
from prefline.engines.model_files import ModelFiles
from prefline.errors import InputError
from prefline.servers.budget import Meter, OverBudget, size_of
from prefline.servers.client import HOPELESS, Client, Refused, Transient, only_choice
from prefline.servers.endpoint import TIMEOUT

# How a server is asked, the best first: vLLM's additions, OpenAI's own fields, and text for a prompt.
DIALECTS = ("token ids", "ids in, text out", "text")


class Engine(Base):
    """See `prefline.engines.load`.

    batch_size: requests in flight. endpoint: an Endpoint, None for a server of the job's own with the engine
    arguments `vllm`; served_model: the model's name there, None for the policy's; seed_per: "shard" sends no
    seeds; journal: work/journal; client: see client.Client.
    """

    def __init__(
        self, model, batch_size, dtype, seed_per, seed, endpoint, served_model, vllm, journal, **client
    ):
        began = time.monotonic()
        atexit.register(self.close)
        self.local = self.client = None
        self.files = ModelFiles(model)
        self.tokenizer, self.end_tokens = self.files.tokenizer, self.files.end_tokens
        self.batch_size, self.seed_per = batch_size, seed_per
        self.name = served_model or Path(model).name
        self.endpoint, self.meter = endpoint, endpoint.meter(1, journal) if endpoint else Meter(1)
        if endpoint is None:
            self.local = serve(self.files, self.name, batch_size, dtype, seed, **vllm)
            urls, timeout, client["key"] = [self.local.url], TIMEOUT, self.local.key
        else:
            urls, timeout, client = endpoint.urls, endpoint.timeout, client | endpoint.client(self.meter)
        self.client = Client(urls, batch_size, timeout, **client)
        self.checked = self.differ = 0
        try:
            self.client.check_model(self.name, endpoint.section if endpoint else "generate")
            with self.meter.alone():
                self.dialect = self._find_dialect()
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.monotonic() - began

    def stream(self, requests, sampling):
        """(index, Completion) as they end; InputError, before the first, if a request cannot be answered."""
        self.files.check(requests, sampling.max_tokens)
        if sampling.top_k and self.dialect != "token ids":
            raise InputError(
                f"{self.client.servers[0].url}: takes no top_k; set generate.top_k to 0 in the config"
            )
        hopeless, self.meter.max_tokens = min(HOPELESS, len(requests)), sampling.max_tokens
        with self.meter.alone():
            for index, made in self.client.each(
                lambda request: self._answer(request, sampling), requests, hopeless
            ):
                yield index, made or Completion([], "error")
        self._check_budget([request for request, _ in self.client.given_up], sampling)

    def report(self):
        return {
            "server_dialect": self.dialect,
            "server_retries": self.client.retries,
            "retokenized": {"checked": self.checked, "differ": self.differ},
        }

    def close(self):
        """End the connections, and the server if it is the job's own."""
        if self.client is not None:
            self.client.close()
        if self.local is not None:
            self.local.close()
            self.local = None

    def _check_budget(self, requests, sampling):
        """Raise InputError if some of `requests`, which were given up, were so for want of a budget."""
        if self.endpoint is not None:
            asked = [self._payload(one.prompt_ids, sampling, one.seed, self.dialect) for one in requests]
            failures = [failure for _, failure in self.client.given_up]
            self.endpoint.check_budget(self.meter, failures, [size_of(payload) for payload in asked])

    def _find_dialect(self):
        """The first of DIALECTS that the servers understand, tried on the least prompt."""
        from prefline.engines import Sampling

        ids = self.tokenizer("a")["input_ids"]
        for dialect in DIALECTS:
            payload = self._payload(ids, Sampling(0.0, 1.0, 0, 1), 0, dialect)
            try:
                return self.client.post("/completions", payload, lambda _: dialect)  # noqa: B023
            except Refused as refused:
                said = refused
            except Transient as failure:
                raise InputError(f"the server answers no request: {failure}") from None
            except OverBudget as failure:
                self.endpoint.check_budget(self.meter, [failure], [])
        raise InputError(f"the server refuses a plain request for {self.name!r}: {said}")

    def _payload(self, prompt_ids, sampling, seed, dialect):
        payload = {
            "model": self.name,
            "prompt": prompt_ids,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "n": 1,
        }
        if self.seed_per == "completion":
            payload["seed"] = seed
        if dialect == "token ids":
            payload |= {
                "top_k": sampling.top_k,
                "stop_token_ids": self.end_tokens,
                "return_token_ids": True,
                "skip_special_tokens": False,
                # vLLM fills in from the model's generation config what a request leaves open.
                "min_p": 0.0,
                "repetition_penalty": 1.0,
            }
        elif dialect == "text":
            bos, rest = self.tokenizer.bos_token_id, list(prompt_ids)
            if rest[:1] == [bos]:
                rest = rest[1:]  # the server writes it
            payload["prompt"] = self.tokenizer.decode(rest)
        return payload

    def _answer(self, request, sampling):
        """The Completion; Transient if the server fails to the last."""
        payload = self._payload(request.prompt_ids, sampling, request.seed, self.dialect)
        try:
            return self.client.post("/completions", payload, lambda body: self._read(body, request))
        except Refused as refused:
            raise InputError(f"{request.name}: the server refuses it: {refused}") from None

    def _read(self, body, request):
        """The Completion of an answer; Transient if it is not one answer that has ended."""
        choice, usage = only_choice(body, ("stop", "length")), body.get("usage") or {}
        reason = choice["finish_reason"]
        counted = usage.get("prompt_tokens")
        if counted not in (None, len(request.prompt_ids)):
            raise InputError(
                f"{request.name}: the server reads a prompt of {counted} tokens where "
                f"{len(request.prompt_ids)} were sent: it does not take prompts as they are (a second BOS?)"
            )
        ids = choice.get("token_ids")
        if ids is None:
            ids = self._tokenize(choice, reason, usage.get("completion_tokens"))
        made = completion(ids, reason, self.end_tokens)
        if not made.ids:
            raise Transient("an answer without a token")
        return made

    def _tokenize(self, choice, reason, counted):
        """Ids of a choice's text, with the end token that a server keeps to itself; checks their number."""
        if not isinstance(choice.get("text"), str):
            raise Transient("an answer without text")
        ids = self.tokenizer(choice["text"], add_special_tokens=False)["input_ids"]
        if reason == "stop" and (not ids or ids[-1] not in self.end_tokens):
            ids.append(self.tokenizer.eos_token_id or self.end_tokens[0])
        self.checked += 1
        self.differ += counted is not None and counted != len(ids)
        return ids

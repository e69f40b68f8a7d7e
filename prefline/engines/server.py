"""The `server` engine: any server with OpenAI's /v1/completions, or several that share the requests.

Prompts go in as ids and completions come back as ids where the server knows how (vLLM). If it gives text
only, the text is tokenized again, and the report counts completions whose number of tokens then differs from
the server's: their ids are not exactly the policy's. A server that takes no ids gets text, and must count as
many prompt tokens as the prompt has; otherwise it has added a BOS.

Without URLs, the job starts vLLM's server for its policy and stops it at the end. The server must serve the
model under the policy's name (the name of its directory) or the config's: a server with another model would
answer, too.
"""

import atexit
import re
import time
from pathlib import Path

from prefline.engines import Base, Completion, completion
from prefline.engines.local_server import serve
from prefline.engines.model_files import ModelFiles
from prefline.errors import InputError
from prefline.servers import replies
from prefline.servers.budget import Meter, OverBudget, size_of
from prefline.servers.client import HOPELESS, Client
from prefline.servers.conversation import NEUTRAL, OF_NEUTRAL
from prefline.servers.endpoint import TIMEOUT
from prefline.servers.replies import Lost, Refused, Transient

# Forms of requests, the best first: vLLM's additions, OpenAI's own fields, and text as the prompt. With each,
# whether the values of NEUTRAL are sent: OpenAI's own servers take none of them.
DIALECTS = ("token ids", "ids in, text out", "text")
FORMS = (("token ids", True), *((dialect, neutral) for dialect in DIALECTS[1:] for neutral in (True, False)))
# A refusal of a prompt of ids.
OF_IDS = re.compile(r"prompt|string", re.IGNORECASE)
# Bits of the seeds, as servers take them; the first that works.
SEED_BITS = (63, 31)


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
            urls, timeout = [self.local.url], TIMEOUT
            client |= {"key": self.local.key, "check": self.local.check}
        else:
            urls, timeout, client = endpoint.urls, endpoint.timeout, client | endpoint.client(self.meter)
        self.client = Client(urls, batch_size, timeout, **client)
        self.checked = self.differ = 0
        try:
            self.client.check_model(self.name, endpoint.section if endpoint else "generate")
            with self.meter.alone():
                self._find_form()
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.monotonic() - began

    def stream(self, requests, sampling):
        """Yield (index, Completion) as they end; raise InputError first if a request cannot be answered."""
        self.files.check(requests, sampling.max_tokens)
        if sampling.top_k and self.dialect != "token ids":
            raise InputError(
                f"{self.client.servers[0].url}: takes no top_k; set generate.top_k to 0 in the config"
            )
        hopeless, self.meter.max_tokens = min(HOPELESS, len(requests)), sampling.max_tokens
        with self.meter.alone():
            for index, made in self.client.each(
                lambda request: self._answer(request, sampling), requests, hopeless, self._try
            ):
                yield index, made or Completion([], "error")
        self._check_budget([request for request, _ in self.client.given_up], sampling)

    def report(self):
        return {
            "server_dialect": self.dialect,
            "server_seed_bits": self.seed_bits if self.seed_per == "completion" else None,
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
        """Raise InputError if some of `requests` were given up because the budget was used up."""
        if self.endpoint is not None:
            asked = [self._payload(one.prompt_ids, sampling, one.seed) for one in requests]
            failures = [failure for _, failure in self.client.given_up]
            self.endpoint.check_budget(self.meter, failures, [size_of(payload) for payload in asked])

    def _find_form(self):
        """Find the first of FORMS, and of SEED_BITS, that the servers understand."""
        self.seed_bits, left, said = SEED_BITS[0], list(FORMS), ""
        while left:
            self.dialect, self.neutral = left[0]
            try:
                return self._try()
            except Refused as refused:
                said = str(refused)
            except Transient as failure:
                raise InputError(f"the server answers no request: {failure}") from None
            except OverBudget as failure:
                self.endpoint.check_budget(self.meter, [failure], [])
            words = said.rpartition("status")[2]
            if self.seed_per == "completion" and "seed" in words.lower():
                if self.seed_bits == SEED_BITS[-1]:
                    raise InputError(f"the server takes no seed: {said}; set generate.seed_per: shard")
                self.seed_bits = SEED_BITS[-1]
                continue
            left = [
                (dialect, neutral)
                for dialect, neutral in left[1:]
                if not (dialect != "text" and OF_IDS.search(words))
                and not (neutral and OF_NEUTRAL.search(words))
            ]
        raise InputError(f"the server refuses a plain request for {self.name!r}: {said}")

    def _try(self):
        """Ask for one token after the least prompt; raises as `Client.post` does."""
        from prefline.engines import Sampling

        payload = self._payload(self.tokenizer("a")["input_ids"], Sampling(0.0, 1.0, 0, 1), 2**62 + 1)
        self.client.post("/completions", payload, lambda _: None)

    def _payload(self, prompt_ids, sampling, seed):
        payload = {
            "model": self.name,
            "prompt": prompt_ids,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "n": 1,
        }
        if self.seed_per == "completion":
            payload["seed"] = seed % 2**self.seed_bits
        if self.neutral:
            payload |= NEUTRAL
        if self.dialect == "token ids":
            payload |= {
                "top_k": sampling.top_k,
                "stop_token_ids": self.end_tokens,
                "return_token_ids": True,
                "skip_special_tokens": False,
            }
        elif self.dialect == "text":
            bos, rest = self.tokenizer.bos_token_id, list(prompt_ids)
            if rest[:1] == [bos]:
                rest = rest[1:]  # the server writes it
            payload["prompt"] = self.tokenizer.decode(rest)
        return payload

    def _answer(self, request, sampling):
        """Return the Completion; raises as `Client.post` does."""
        payload = self._payload(request.prompt_ids, sampling, request.seed)
        return self.client.post(
            "/completions", payload, lambda body: self._read(body, request, sampling.max_tokens)
        )

    def _read(self, body, request, max_tokens):
        """Return the Completion of an answer; Lost if it is not one answer that has ended."""
        choice, usage = replies.only_choice(body), body.get("usage")
        reason, usage = choice["finish_reason"], usage if isinstance(usage, dict) else {}
        if reason == "content_filter":
            raise Refused("the server filters the answer")  # another draw would favour what passes
        counted = usage.get("prompt_tokens")
        if counted not in (None, len(request.prompt_ids)):
            raise InputError(
                f"{request.name}: the server reads a prompt of {counted} tokens where "
                f"{len(request.prompt_ids)} were sent: it does not take prompts as they are (a second BOS?)"
            )
        ids = choice.get("token_ids")
        if ids is None:
            ids = self._tokenize(choice, reason, usage.get("completion_tokens"))
        else:
            self._check_ids(request, ids, reason, max_tokens)
        made = completion(ids, reason, self.end_tokens, self.files.end_of_turn)
        if not made.ids:
            raise Lost("an answer without a token")
        return made

    def _check_ids(self, request, ids, reason, max_tokens):
        """Raise InputError unless `ids` are tokens of the model, and end where they may."""
        if not all(type(one) is int and 0 <= one < self.files.vocabulary for one in ids):
            raise InputError(f"{request.name}: the server gives ids that the model's vocabulary lacks")
        if len(ids) > max_tokens:
            raise InputError(
                f"{request.name}: the server gives {len(ids)} tokens where {max_tokens} are the most"
            )
        if reason == "length" and 0 < len(ids) < max_tokens:
            raise InputError(
                f"{request.name}: the server cuts an answer off after {len(ids)} tokens of {max_tokens} that "
                "were asked for; remove its limit, such as max_new_tokens in generation_config.json"
            )

    def _tokenize(self, choice, reason, counted):
        """Return the ids of a choice's text, with the end token that a server hides; check their number."""
        if not isinstance(choice.get("text"), str):
            raise Lost("an answer without text")
        ids = self.tokenizer(choice["text"], add_special_tokens=False)["input_ids"]
        if reason == "stop" and (not ids or ids[-1] not in self.end_tokens):
            ids.append(self.files.end_of_turn)
        self.checked += 1
        self.differ += counted is not None and counted != len(ids)
        return ids

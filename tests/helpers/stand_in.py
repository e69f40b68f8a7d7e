"""A server for completions, and for chats in OpenAI's and Anthropic's way, that fails on request."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What a server may do in the place of an answer, for `StandIn.faults`.
FAULTS = [
    (429, {"Retry-After": "0"}),
    (500, {}),
    (503, {}),
    "hang",
    "disconnect",
    "truncated JSON",
    "no choices",
    "two choices",
    "aborted",
    [],
]


# Fields of requests that OpenAI's own servers do not take.
VLLMS = ("return_token_ids", "top_k", "min_p", "repetition_penalty")


class StandIn:
    """Answers a prompt with ids that depend on its seed, and messages with what `says(payload)` gives.

    `faults` go off first, one for each completion but the first, which is a trial.

    name: the model's; url: up to /v1; asked: payloads of all completions that it took; received: those of
    all; headers, query: of the last request; replies(payload): (status, body, headers) of a POST in its
    place, or None; models: (status, body) of /models; vllm: whether it takes vLLM's additions; takes_ids:
    whether a prompt may be ids; key: the key that it wants, or None; refused: fields that it refuses beside
    messages;
    status: of all its answers to messages; usage(payload, text): the tokens that it counts, in and out;
    seconds: how long it thinks; most: the most requests that it had at once.
    """

    def __init__(
        self,
        tokenizer=None,
        name="policy",
        vllm=True,
        takes_ids=True,
        key=None,
        says=None,
        refused=(),
        usage=None,
        seconds=0.0,
    ):
        self.tokenizer, self.name, self.vllm, self.takes_ids, self.key = tokenizer, name, vllm, takes_ids, key
        self.faults, self.asked, self.received, self.headers, self.query = [], [], [], {}, ""
        self.says, self.refused, self.usage, self.seconds = says, refused, usage, seconds
        self.extra_prompt_tokens, self.status = 0, 200
        self.replies, self.models = lambda payload: None, None
        self.running = self.most = 0
        self.lock = threading.Lock()
        self.released = threading.Event()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                stand_in.headers = dict(self.headers)
                if stand_in.models:
                    reply(self, *stand_in.models)
                elif stand_in.authorized(self):
                    reply(self, 200, {"data": [{"id": stand_in.name}]})

            def do_POST(self):
                payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not stand_in.authorized(self):
                    return
                with stand_in.lock:
                    stand_in.received.append(payload)
                    stand_in.running += 1
                    stand_in.most = max(stand_in.most, stand_in.running)
                path, _, stand_in.query = self.path.partition("?")
                if other := stand_in.replies(payload):
                    reply(self, *other)
                elif path in ("/v1/chat/completions", "/v1/messages"):
                    stand_in.headers = dict(self.headers)
                    stand_in.released.wait(stand_in.seconds)
                    stand_in.converse(self, payload)
                else:
                    stand_in.complete(self, payload)
                with stand_in.lock:
                    stand_in.running -= 1

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def authorized(self, handler):
        sent = handler.headers.get("Authorization", "")
        if self.key is None or self.key in (sent.removeprefix("Bearer "), handler.headers.get("x-api-key")):
            return True
        reply(handler, 401, {"error": {"message": f"Incorrect API key provided: {sent}"}})
        return False

    def ids(self, seed):
        return [40 + seed % 50, 41 + seed % 50, 4]

    def complete(self, handler, payload):
        if payload["model"] != self.name:
            return reply(handler, 404, {"error": {"message": f"The model {payload['model']} does not exist"}})
        foreign = [field for field in VLLMS if field in payload]
        if foreign and not self.vllm:
            return reply(handler, 400, {"error": {"message": f"Unrecognized request argument: {foreign[0]}"}})
        if not isinstance(payload["prompt"], str) and not self.takes_ids:
            return reply(handler, 422, {"error": "prompt: expected a string"})
        self.asked.append(payload)
        prompt = payload["prompt"]
        if isinstance(prompt, str):
            prompt = [0, *self.tokenizer(prompt)["input_ids"]]
        ids = self.ids(payload.get("seed", 0))
        choice = {"text": self.tokenizer.decode(ids[:-1]), "finish_reason": "stop", "index": 0}
        if self.vllm:
            choice["token_ids"] = ids
        usage = {"prompt_tokens": len(prompt) + self.extra_prompt_tokens, "completion_tokens": len(ids)}
        self.answer(handler, {"choices": [choice], "usage": usage})

    def converse(self, handler, payload):
        if payload["model"] != self.name:
            return reply(handler, 404, {"error": {"message": f"The model {payload['model']} does not exist"}})
        for field in self.refused:
            if field in payload:
                return reply(handler, 400, {"error": {"message": f"Unsupported parameter: {field}"}})
        self.asked.append(payload)
        if self.status != 200:
            return reply(handler, self.status, {"error": {"message": "refused"}})
        text = self.says(payload)
        counted = self.usage(payload, text) if self.usage else None
        if handler.path.startswith("/v1/messages"):
            usage = dict(zip(("input_tokens", "output_tokens"), counted or (), strict=False))
            body = {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": usage}
            return self.answer(handler, body)
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", "index": 0}
        usage = dict(zip(("prompt_tokens", "completion_tokens"), counted or (), strict=False))
        self.answer(handler, {"choices": [choice]} | ({"usage": usage} if usage else {}))

    def answer(self, handler, body):
        choice = body.get("choices", [{}])[0]
        fault = self.faults.pop(0) if self.faults and len(self.asked) > 1 else None
        if fault is None:
            return reply(handler, 200, body)
        if isinstance(fault, tuple):
            status, headers = fault
            return reply(handler, status, {"error": {"message": "not now"}}, headers)
        if fault == "hang":
            return self.released.wait(30)
        if fault == "disconnect":
            return handler.connection.close()
        if fault == "truncated JSON":
            return reply(handler, 200, json.dumps(body)[:40])
        if fault == "no choices":
            return reply(handler, 200, {"choices": []})
        if fault == "two choices":
            return reply(handler, 200, {"choices": [choice, choice]})
        if fault == "aborted":
            return reply(handler, 200, {"choices": [choice | {"finish_reason": "abort"}]})
        return reply(handler, 200, fault)


def endpoint(server, **changed):
    """An endpoint (dict) as the config resolves it: a StandIn, an address, or none ("")."""
    from prefline.config import endpoints

    url = server if isinstance(server, str) else server.url
    known = {"name": "stand_in", "kind": "openai", "model": "judge", "dtype": "float32", "timeout": 30}
    return endpoints.DEFAULTS | known | {"urls": [url] if url else []} | changed


def reply(handler, status, body, headers=()):
    text = (body if isinstance(body, str) else json.dumps(body)).encode()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        handler.send_response(status)
        for name, value in dict(headers).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

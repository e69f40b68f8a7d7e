"""A filter before all paths of the vLLM server that a job starts: without the key it answers nothing.

vLLM asks for the key only on paths that begin with /v1; /invocations and /tokenize would serve the model to
everyone on the machine.
"""

import hmac
import os

VARIABLE = "VLLM_API_KEY"


class OnlyWithKey:
    """ASGI middleware that answers 401 to requests without the key of the environment."""

    def __init__(self, app):
        self.app, self.expected = app, f"Bearer {os.environ[VARIABLE]}".encode()

    async def __call__(self, scope, receive, send):
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        given = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(given, self.expected):
            return await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        return await send({"type": "http.response.body", "body": b"the key is wrong or missing"})

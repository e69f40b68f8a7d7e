"""Requests to OpenAI-compatible servers that fail now and then: retried, shared out, and never too many.

What may pass is tried again: no connection, a timeout, a server that is busy or broken, an answer that is cut
off or not what was asked for. The wait doubles from try to try, with jitter, so that many clients do not come
back together; a `Retry-After` is obeyed by all requests to that server. What cannot pass (a wrong key, a
wrong name, a request that the server does not understand) is an InputError at once.
"""

import email.utils
import json
import os
import stat
import threading
import time
from concurrent import futures

import httpx2
import tenacity

from prefline.errors import InputError
from prefline.servers.budget import OverBudget

# Where the key is read from, or with the ending the name of a file with it; it is in no config, log or
# message. Another server's key has another variable, and so another file.
KEY_VARIABLE = "PREFLINE_API_KEY"
FILE_ENDING = "_FILE"
KEY_FILE_VARIABLE = KEY_VARIABLE + FILE_ENDING
BUSY_OR_BROKEN = {408, 425, 429, 500, 502, 503, 504, 529}
LONGEST_RETRY_AFTER = 600.0
# Requests given up in a row that are the server's fault, not the requests'.
HOPELESS = 16


class Transient(Exception):
    """A failure that may pass; its text names the server and the failure."""


class Lost(Transient):
    """No readable answer to a request that the server may have worked on, and charge for."""


class Refused(Exception):
    """The server does not understand the request (status 400, 404 or 422); its text is what it said."""


class Server:
    """One server: its URL up to /v1, and how it does."""

    def __init__(self, url):
        self.url = url.rstrip("/")
        self.in_flight = self.failures = 0  # failures since the last answer
        self.not_before = 0.0  # time.monotonic() from which it takes requests again


class Client:
    """Sends requests to `urls` (list of str, up to /v1), which share them.

    concurrency: most requests in flight together; timeout: seconds to wait for an answer; key: str, None for
    that of the environment variable key_variable; attempts: tries of a request; first_wait, longest_wait:
    seconds before the second try and before the last ones, at most; headers(key): those that carry the key;
    meter: a budget.Meter for servers that cost money or limit the rate, None for others. given_up: (request,
    exception) of what `each` gave up.
    """

    def __init__(
        self,
        urls,
        concurrency,
        timeout,
        key=None,
        attempts=10,
        first_wait=1.0,
        longest_wait=60.0,
        key_variable=KEY_VARIABLE,
        headers=None,
        meter=None,
    ):
        self.servers = [Server(url) for url in urls]
        self.concurrency = concurrency
        self.attempts = attempts
        self.wait = tenacity.wait_random_exponential(multiplier=first_wait, max=longest_wait)
        self.key_variable = key_variable
        self.key = key or environment_key(key_variable)
        self.meter, self.given_up = meter, []
        self.lock, self.closed = threading.Lock(), threading.Event()
        self.retries = 0
        self.http = httpx2.Client(
            headers=(headers or bearer)(self.key) if self.key else {},
            timeout=httpx2.Timeout(timeout, connect=min(timeout, 10.0)),
            limits=httpx2.Limits(max_connections=concurrency),
        )

    def close(self):
        self.closed.set()
        self.http.close()

    def get(self, server, path):
        """The JSON that one server gives for `path`; raises as `post` does, after few tries."""
        attempts = min(self.attempts, 3)
        return self._retry(attempts, lambda: self._send(server, "GET", path, None, lambda body: body))

    def check_model(self, name, section):
        """InputError unless every server is there and has the model `name`.

        section: of the config, with the keys `urls` and `model`.
        """
        for server in self.servers:
            try:
                models = self.get(server, "/models")
            except Transient as failure:
                raise InputError(
                    f"{failure}: the server is not reachable; start it, or correct {section}.urls in the "
                    "config"
                ) from None
            except Refused:
                continue  # keeps no list: the first request will tell
            names = [entry.get("id") for entry in models.get("data") or []]
            if name not in names:
                raise InputError(
                    f"{server.url}: the server has no model {name!r}, only {', '.join(map(repr, names))}; "
                    f"serve it under that name (--served-model-name), or set {section}.model"
                )

    def post(self, path, payload, read):
        """`read(body)` of the JSON answer to `payload` of whichever server is freest.

        read: raises Transient for a body that is not as it should be. Raises Transient if the last try
        failed, Refused, or InputError for a refused key.
        """
        return self._retry(
            self.attempts, lambda: self._send(self._freest(), "POST", path, payload, read, taken=True)
        )

    def map(self, function, items):
        """(item, function(item)) as they end, `concurrency` at a time; the first exception ends all."""
        waiting, todo = {}, iter(items)
        self.closed.clear()
        pool = futures.ThreadPoolExecutor(self.concurrency)
        try:
            while True:
                # No more in the pool than it works on: a million requests need no million futures.
                while len(waiting) < 2 * self.concurrency and (item := next(todo, None)) is not None:
                    waiting[pool.submit(function, item)] = item
                if not waiting:
                    return
                done, _ = futures.wait(waiting, return_when=futures.FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.result()
        finally:
            if waiting:
                self.closed.set()  # no more tries
            pool.shutdown(wait=False, cancel_futures=True)

    def each(self, function, requests, hopeless=HOPELESS):
        """(index, function(request)) as they end; None for what is given up, which is named.

        function: raises Transient, Refused or OverBudget for what to give up; requests: a list of things with
        a `name`.
        Raises InputError once `hopeless` in a row are given up.
        """
        in_a_row = 0

        def tried(pair):
            try:
                return function(pair[1]), None
            except (Transient, Refused, OverBudget) as failure:
                return None, failure

        for (index, request), (made, failure) in self.map(tried, enumerate(requests)):
            if failure:
                self.given_up.append((request, failure))
            in_a_row = in_a_row + 1 if failure else 0
            if failure and not isinstance(failure, OverBudget):
                print(f"{request.name} is given up: {failure}", flush=True)
                if in_a_row == hopeless:
                    raise InputError(f"the server fails at every request: {failure}")
            yield index, made

    def _retry(self, attempts, send):
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Transient),
            wait=self.wait,
            stop=tenacity.stop_after_attempt(attempts) | tenacity.stop_when_event_set(self.closed),
            sleep=self.closed.wait,
            before_sleep=lambda _: setattr(self, "retries", self.retries + 1),
            reraise=True,
        )
        return retrying(send)

    def _freest(self):
        with self.lock:
            now = time.monotonic()
            server = min(
                self.servers, key=lambda one: (one.not_before > now, min(one.failures, 3), one.in_flight)
            )
            server.in_flight += 1
            return server

    def _send(self, server, method, path, payload, read, taken=False):
        try:
            delay = server.not_before - time.monotonic()
            if delay > 0:
                self.closed.wait(delay)
            value = self._metered(server, method, path, payload, read)
            server.failures = 0
            return value
        except Transient:
            server.failures += 1
            raise
        finally:
            if taken:
                with self.lock:
                    server.in_flight -= 1

    def _metered(self, server, method, path, payload, read):
        """What `read` makes of an answer, whose cost is metered whether it can be read or not."""
        if self.meter is None or payload is None:
            return read(self._json(server, method, path, payload))
        call = self.meter.start(payload, self.closed.wait)
        try:
            body = self._json(server, method, path, payload)
        except BaseException as failure:
            self.meter.end(call, charged=isinstance(failure, Lost))
            raise
        self.meter.end(call, charged=True, usage=body.get("usage"))
        return read(body)

    def _json(self, server, method, path, payload):
        try:
            response = self.http.request(method, server.url + path, json=payload)
        except httpx2.TransportError as error:
            raise Lost(f"{server.url}: {type(error).__name__} {error}".rstrip()) from None
        status = response.status_code
        if status in (401, 403):
            state = "is refused" if self.key else "is not set"
            raise InputError(
                f"{server.url}: the server wants a key (status {status}) and {self.key_variable} {state}; "
                f"export the right one, or {self.key_variable}{FILE_ENDING}"
            )
        if status in BUSY_OR_BROKEN:
            server.not_before = time.monotonic() + retry_after(response.headers.get("Retry-After"))
            raise Transient(f"{server.url}: status {status}, {self._said(response)}")
        if status != 200:
            raise Refused(f"{server.url}{path}: status {status}, {self._said(response)}")
        try:
            body = response.json()
        except ValueError:
            raise Lost(f"{server.url}: an answer that is no JSON: {self._said(response)}") from None
        if not isinstance(body, dict):
            raise Lost(f"{server.url}: an answer that is no object: {self._said(response)}")
        return body

    def _said(self, response):
        """What a server says of a failure, in a line and without the key, which some repeat."""
        try:
            body = response.json()
            body = body.get("error", body) if isinstance(body, dict) else body
            text = body.get("message", body) if isinstance(body, dict) else body
            text = text if isinstance(text, str) else json.dumps(text)
        except ValueError:
            text = response.text
        text = " ".join(text.split())[:300]
        return text.replace(self.key, "***") if self.key else text


def bearer(key):
    """The header (dict) that carries a key (str) to most servers."""
    return {"Authorization": f"Bearer {key}"}


def environment_key(variable=KEY_VARIABLE):
    """The key (str) that the environment `variable` or the file named there holds, None if there is none.

    Raises InputError for a file that is not there or that others may read, and for what is no key: a library
    would repeat it in its message.
    """
    file_variable = variable + FILE_ENDING
    key, path = os.environ.get(variable), os.environ.get(file_variable)
    try:
        if not key and path:
            with open(path, encoding="utf-8") as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                    raise InputError(f"{file_variable}: others may read {path}; chmod 600 {path}")
                key = file.read()
    except OSError as error:
        raise InputError(f"{file_variable}: {path} cannot be read: {error.strerror}") from None
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{variable}: has characters that no key has; set it again")
    return key or None


def only_choice(body, reasons):
    """The one choice (dict) of an answer; Transient if it is not one that has ended for one of `reasons`."""
    choices = body.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        found = len(choices) if isinstance(choices, list) else "no"
        raise Transient(f"an answer with {found} choices where one was asked for")
    reason = choices[0].get("finish_reason")
    if reason not in reasons:
        raise Transient(f"an answer with the finish_reason {reason!r}")
    return choices[0]


def retry_after(value, now=None):
    """Seconds (float) that a Retry-After header asks for: a number of them or a date; 0 for anything else.

    now: seconds since the epoch, for a date; None is the present.
    """
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(value).timestamp()
        except ValueError:
            return 0.0
        seconds = date - (time.time() if now is None else now)
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if seconds == seconds else 0.0

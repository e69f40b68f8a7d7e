"""Send requests to OpenAI-compatible servers that may fail: retried, balanced, and limited in number.

Transient failures are retried: no connection, a timeout, a server that is busy or broken, an answer that is
cut off or is not what was asked for. The last kind may be charged for, so it has few tries. The wait doubles
from try to try, with jitter, so that clients do not retry together; all requests to a server obey its
`Retry-After`. Failures that no retry mends (a wrong key, an empty account, a model that is gone) raise an
InputError at once, after the answers that are under way.
"""

import contextlib
import ipaddress
import os
import stat
import threading
import time
from concurrent import futures

import httpx2
import tenacity

from prefline.errors import InputError, MachineError
from prefline.servers import replies
from prefline.servers.budget import OverBudget
from prefline.servers.replies import Lost, Refused, Transient

# Where the key is read from, or with the ending the name of a file with it; it is in no config, log or
# message. Another server's key has another variable, and so another file.
KEY_VARIABLE = "PREFLINE_API_KEY"
FILE_ENDING = "_FILE"
KEY_FILE_VARIABLE = KEY_VARIABLE + FILE_ENDING
# Requests given up in a row that are the server's fault, not the requests'.
HOPELESS = 16
# Tries of a request that the server may have charged for.
CHARGED_TRIES = 3


class Server:
    """One server: its URL up to /v1, and how it does."""

    def __init__(self, url):
        self.url = url.rstrip("/")
        self.in_flight = self.failures = self.refusals = 0  # failures and refusals since the last answer
        self.not_before = 0.0  # time.monotonic() from which it takes requests again


class Client:
    """Sends requests to `urls` (list of str, up to /v1), which share them.

    concurrency: most requests in flight together; timeout: seconds to wait for an answer; key: str, None for
    that of the environment variable key_variable; attempts: tries of a request; first_wait, longest_wait:
    seconds before the second try and before the last ones, at most; headers(key): those that carry the key;
    extra_body, extra_query: dict, fields of the body of each POST, and parameters of each URL;
    meter: a budget.Meter for servers that cost money or limit the rate, None for others; check(): raises an
    exception if a server has ended for good, None for servers of others. given_up: (request, exception) of
    what `each` gave up; repaired: int, answers with text that was no Unicode; owners: set of str, who serves
    the models that `models` found. Raises InputError for a proxy in the environment that cannot be used.
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
        extra_body=None,
        extra_query=None,
        meter=None,
        check=None,
    ):
        self.servers = [Server(url) for url in urls]
        self.concurrency = concurrency
        self.attempts = attempts
        self.wait = tenacity.wait_random_exponential(multiplier=first_wait, max=longest_wait)
        self.key_variable = key_variable
        self.key = key or environment_key(key_variable)
        self.extra_body = extra_body or {}
        self.meter, self.check, self.given_up = meter, check, []
        self.lock, self.closed = threading.Lock(), threading.Event()
        self.retries = self.repaired = 0
        self.owners = set()
        local = [server.url for server in self.servers if is_local(server.url)]
        try:
            self.http = httpx2.Client(
                headers=(headers or bearer)(self.key) if self.key else {},
                params=extra_query,
                timeout=httpx2.Timeout(timeout, connect=min(timeout, 10.0)),
                limits=httpx2.Limits(max_connections=concurrency),
                # A proxy of the environment, which would read the key, is only for other machines.
                trust_env=len(local) < len(self.servers),
                mounts={f"all://{httpx2.URL(url).netloc.decode()}": None for url in local},
            )
        except (ValueError, ImportError, httpx2.InvalidURL) as error:
            raise InputError(
                "the proxy that the environment names (http_proxy, https_proxy, all_proxy) cannot be used: "
                f"{error}; correct or unset it"
            ) from None

    def close(self):
        if self.repaired:
            print(f"{self.repaired} answers had text that is not Unicode; � replaces it", flush=True)
        self.closed.set()
        self.http.close()

    def models(self, section):
        """Return the names (list of a set of str, by server) that the servers list, empty if they list none.

        They are a hint: keys may not read the list, and it may have other names. section: of the config, with
        the key `urls`. Raises InputError for a server that is not there.
        """
        try:
            return [self._retry(min(self.attempts, 3), lambda: self._models(one)) for one in self.servers]  # noqa: B023
        except Transient as failure:
            raise InputError(
                f"{failure}: the server is not reachable; start it, or correct {section}.urls in the config"
            ) from None

    def check_model(self, name, section):
        """Raise InputError unless every server is there and has the model `name`, if it lists models.

        section: of the config, with the keys `urls` and `model`.
        """
        for server, names in zip(self.servers, self.models(section), strict=True):
            if names and name not in names:
                raise InputError(
                    f"{server.url}: the server has no model {name!r}, only {listed(names)}; "
                    f"serve it under that name (--served-model-name), or set {section}.model"
                )

    def _models(self, server):
        response = self._request(server, "GET", "/models", None)
        with contextlib.suppress(ValueError, RecursionError):
            body = replies.parsed(response) if response.status_code == 200 else None
            self.owners |= replies.model_names(body, "owned_by")
            return replies.model_names(body)
        return set()

    def post(self, path, payload, read, server=None):
        """Return `read(body)` of the JSON answer to `payload` of a server, or of whichever is freest.

        read: raises Transient for a body that is not as it should be. Raises Transient if the last try
        failed, Refused, or InputError for what no retry mends.
        """
        return self._retry(self.attempts, lambda: self._send(self._taken(server), path, payload, read))

    def map(self, function, items):
        """Yield (item, function(item)) as they end, `concurrency` at a time; the first exception ends all."""
        waiting, todo = {}, iter(items)
        self.closed.clear()
        pool = futures.ThreadPoolExecutor(self.concurrency)
        try:
            while True:
                # No more in the pool than it works on: a million requests need no million futures.
                while len(waiting) < 2 * self.concurrency and not self.closed.is_set():
                    if (item := next(todo, None)) is None:
                        break
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

    def each(self, function, requests, hopeless=HOPELESS, trial=None):
        """Yield (index, function(request)) as they end; None for what is given up, which is named.

        function: raises Transient, Refused or OverBudget for what to give up; requests: a list of things with
        a `name`. Failures that end the job are raised after the answers under way, which may be paid for.
        Raises InputError once `hopeless` in a row are given up; or if the last ones are refused, and then
        trial(), a request that was answered before.
        """
        in_a_row, ends = 0, []  # what ends the job, the first one first

        def tried(pair):
            if self.closed.is_set():
                return None, Transient("not asked")
            try:
                return function(pair[1]), None
            except (Transient, Refused, OverBudget) as failure:
                return None, failure
            except (InputError, MachineError) as failure:
                ends.append(failure)
                self.closed.set()  # no more requests
                return None, failure

        for (index, request), (made, failure) in self.map(tried, enumerate(requests)):
            in_a_row = in_a_row + 1 if failure else 0
            if ends:
                if not failure:
                    yield index, made
                continue
            if failure:
                self.given_up.append((request, failure))
            if failure and not isinstance(failure, OverBudget):
                print(f"{request.name} is given up: {failure}", flush=True)
                if in_a_row == hopeless:
                    ends.append(InputError(f"the server fails at every request: {failure}"))
                    self.closed.set()
            yield index, made
        if ends:
            raise ends[0]
        if in_a_row > 1 and trial and isinstance(self.given_up[-1][1], Refused):
            try:
                trial()
            except OverBudget:
                return
            except (Refused, Transient) as failure:
                raise InputError(f"the server refuses what it took before: {failure}") from None

    def _retry(self, attempts, send):
        charged = 0

        def stop(state):
            nonlocal charged
            charged += isinstance(state.outcome.exception(), Lost)
            return state.attempt_number >= attempts or charged >= CHARGED_TRIES or self.closed.is_set()

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Transient),
            wait=self.wait,
            stop=stop,
            sleep=self.closed.wait,
            before_sleep=lambda _: setattr(self, "retries", self.retries + 1),
            reraise=True,
        )
        return retrying(send)

    def _taken(self, server=None):
        """Return a server with one more request in flight: the one given, or the freest.

        One that refuses counts as busy, or its speed would draw all requests to it.
        """
        with self.lock:
            now = time.monotonic()
            server = server or min(
                self.servers,
                key=lambda one: (one.not_before > now, min(one.failures, 3), one.in_flight + one.refusals),
            )
            server.in_flight += 1
            return server

    def _send(self, server, path, payload, read):
        try:
            delay = server.not_before - time.monotonic()
            if delay > 0 and self.closed.wait(delay):
                raise Transient(f"{server.url}: not asked again")
            value = self._metered(server, path, payload, read)
            server.failures = server.refusals = 0
            return value
        except Transient:
            server.failures += 1
            raise
        except Refused:
            server.refusals += 1
            raise
        finally:
            with self.lock:
                server.in_flight -= 1

    def _metered(self, server, path, payload, read):
        """Return `read(answer)`; the answer's cost is metered even if it cannot be read."""
        payload = payload | self.extra_body
        if self.meter is None:
            return read(self._answer(server, path, payload))
        call = self.meter.start(payload, self.closed.wait)
        try:
            if self.closed.is_set():
                raise Transient(f"{server.url}: not asked")
            body = self._answer(server, path, payload)
        except BaseException as failure:
            self.meter.end(call, charged=isinstance(failure, Lost))
            raise
        self.meter.end(call, charged=True, usage=body.get("usage"))
        return read(body)

    def _request(self, server, method, path, payload):
        try:
            return self.http.request(method, server.url + path, json=payload)
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            if self.check:
                self.check()
            unsent = isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout))
            kind = Transient if unsent else Lost
            raise kind(f"{server.url}: {type(error).__name__} {error}".rstrip()) from None

    def _answer(self, server, path, payload):
        """Return the JSON object of a server's answer; raises what its failure stands for."""
        response = self._request(server, "POST", path, payload)
        state = "is refused" if self.key else "is not set"
        wrong_key = (
            f"the server wants a key (status {{status}}) and {self.key_variable} {state}; "
            f"export the right one, or {self.key_variable}{FILE_ENDING}"
        )
        failure = replies.failure_of(response, server.url + path, self._said(response), wrong_key)
        if isinstance(failure, Transient):
            server.not_before = time.monotonic() + replies.retry_after(response.headers.get("Retry-After"))
        if failure:
            raise failure
        try:
            body = replies.body_of(response)
        except Lost as failure:
            raise Lost(replies.masked(f"{server.url}: {failure}", self.key)) from None
        with self.lock:
            self.repaired += replies.is_repaired(response)
        return body

    def _said(self, response):
        return replies.said(response, self.key)


def listed(names):
    """Return names (set of str) for a message, the first of many."""
    shown = sorted(names)[:20]
    return ", ".join(map(repr, shown)) + (" and more" if len(names) > len(shown) else "")


def is_local(url):
    """Tell whether a URL (str) is one of this machine."""
    host = httpx2.URL(url).host
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified
    return host == "localhost" or host.endswith(".localhost")


def bearer(key):
    """Return the header (dict) that carries a key (str) to most servers."""
    return {"Authorization": f"Bearer {key}"}


def environment_key(variable=KEY_VARIABLE):
    """Return the key (str) in the environment `variable` or the file named there; None if there is none.

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

"""Limit requests to a server: so many per minute, and never above a budget.

A Meter precedes every try of a request. It first reserves the most that the try can cost. The server counts a
prompt's tokens only later, so they are estimated as at most one for two bytes, or more if the server has
counted more so far. The answer's actual cost then replaces the reservation. So a budget is never exceeded,
and a little of it stays unspent.

Every try is a call; tokens are those that the server reports. A refused try is free. A try without an answer
may have been processed, so it counts as the most that it can cost.

All jobs that ever ask an endpoint share its budget and rates. They ask one after the other, and write what
they spend to a ledger beforehand, so that the calls of a killed job are counted.
"""

import contextlib
import fcntl
import json
import math
import threading
import time

from prefline.errors import InputError

# Tokens for a byte of a prompt: most that is expected before the server has counted any, and a usual number.
MOST_PER_BYTE, USUAL_PER_BYTE = 0.5, 0.25
# Factor by which the next prompt may exceed the most tokens per byte counted so far.
MARGIN = 1.2
MILLION = 1e6


class OverBudget(Exception):
    """A request is not sent: with it, the budget could be exceeded."""


class Meter:
    """Rates and budget of one endpoint.

    max_tokens: longest answer; requests_per_minute, tokens_per_minute: 0 for no limit; input_price,
    output_price: of a million tokens; max_calls, max_cost: None for no limit, in the prices' currency;
    ledger: Path of the file of what all jobs have spent, None to count this one's. calls, cost, and tokens:
    spent so far.
    """

    def __init__(
        self,
        max_tokens,
        requests_per_minute=0,
        tokens_per_minute=0,
        input_price=0.0,
        output_price=0.0,
        max_calls=None,
        max_cost=None,
        ledger=None,
    ):
        self.max_tokens = max_tokens
        self.pace = [
            60 / requests_per_minute if requests_per_minute else 0.0,
            60 / tokens_per_minute if tokens_per_minute else 0.0,
        ]
        self.free = [0.0, 0.0]  # when the next request may go, by number and by tokens
        self.prices = input_price, output_price
        self.max_calls, self.max_cost, self.ledger = max_calls, max_cost, ledger
        self.limited = any(self.pace) or max_calls is not None or max_cost is not None
        self.calls, self.cost, self.reserved, self.tokens = 0, 0.0, 0.0, [0, 0]
        self.per_byte, self.exhausted = MOST_PER_BYTE, False
        self.lock = threading.Lock()

    def price(self, input_tokens, output_tokens):
        """Cost (float) of so many tokens."""
        return (input_tokens * self.prices[0] + output_tokens * self.prices[1]) / MILLION

    @contextlib.contextmanager
    def alone(self):
        """Wait until no other job asks this endpoint, and count what all of them have spent."""
        with self._lock() if self.ledger and self.limited else contextlib.nullcontext():
            self.count()
            yield

    def count(self):
        """Read from the ledger what was spent."""
        if self.ledger is None or not self.ledger.exists():
            return
        with open(self.ledger, encoding="utf-8") as file:
            entries = [entry for line in file if (entry := _entry(line))]
        self.calls, *self.tokens = map(sum, zip(*entries, strict=True)) if entries else (0, 0, 0)
        self.cost = self.price(*self.tokens)

    def spent(self):
        """Return the calls, tokens and cost so far, as text."""
        cost = f", {self.cost:.4f} by the config's prices" if any(self.prices) else ""
        return f"{self.calls} calls, {self.tokens[0]} tokens in and {self.tokens[1]} out{cost}"

    def estimate(self, sizes):
        """Return the number and cost of calls with prompts of `sizes` bytes, as text."""
        number, cost = self.left(sizes)
        return f"{number} calls" + (f", about {cost:.2f} by the config's prices" if any(self.prices) else "")

    def start(self, payload, wait):
        """Wait for the turn of the try of `payload` (dict); return the argument for `end`.

        wait(seconds): sleeps, or returns earlier. Raises OverBudget, and does so for all later tries.
        """
        size = size_of(payload)
        with self.lock:
            most = math.ceil(size * self.per_byte), self.max_tokens
            cost = self.price(*most)
            if self.exhausted or not self._fits(cost):
                self.exhausted = True
                raise OverBudget("the budget is used up")
            self.calls += 1
            self.reserved += cost
            self._enter(1, *most)
            turn = self._turn((1, sum(most)))
        delay = turn - time.monotonic()
        if delay > 0:
            wait(delay)
        return size, cost, most

    def end(self, call, charged, usage=None):
        """Replace a try's reservation by its actual cost.

        call: what `start` gave; charged: whether the server may ask money for it; usage: the answer's, in
        OpenAI's or Anthropic's words, None if it does not say.
        """
        size, cost, most = call
        counted = tokens_of(usage)
        with self.lock:
            self.reserved -= cost
            if counted is None:
                self.cost += cost if charged else 0.0
                if not charged:
                    self._enter(0, -most[0], -most[1])
                return
            self._enter(0, counted[0] - most[0], counted[1] - most[1])
            self.tokens[0] += counted[0]
            self.tokens[1] += counted[1]
            self.cost += self.price(*counted)
            self.per_byte = max(self.per_byte, MARGIN * counted[0] / size)
            self.free[1] -= (sum(most) - sum(counted)) * self.pace[1]

    def left(self, sizes):
        """Return (calls, cost) still to be made for prompts of `sizes` bytes, as estimated by those made."""
        done = max(self.calls, 1)
        output = self.tokens[1] / done if self.tokens[1] else self.max_tokens / 2
        return len(sizes), sum(self.price(size * USUAL_PER_BYTE, output) for size in sizes)

    def _fits(self, cost):
        if self.max_calls is not None and self.calls + 1 > self.max_calls:
            return False
        return self.max_cost is None or self.cost + self.reserved + cost <= self.max_cost

    def _enter(self, calls, input_tokens, output_tokens):
        """Write what is spent to the ledger, or what was not after all; a full disk ends the job."""
        if self.ledger is None:
            return
        try:
            self.ledger.parent.mkdir(parents=True, exist_ok=True)
            with open(self.ledger, "a", encoding="utf-8") as file:
                # Behind the end of a line that was cut off.
                file.write("\n" + json.dumps([calls, input_tokens, output_tokens]))
        except OSError as error:
            raise InputError(
                f"{self.ledger}: {error.strerror}; without it, what is spent could not be counted"
            ) from None

    @contextlib.contextmanager
    def _lock(self):
        self.ledger.parent.mkdir(parents=True, exist_ok=True)
        with open(self.ledger.with_suffix(".lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("another job is asking this endpoint; waiting until it has ended", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:
                print(
                    "this file system has no locks, so each job counts its spending at this endpoint alone",
                    flush=True,
                )
            yield

    def _turn(self, amounts):
        """Return the time.monotonic() at which so many requests and tokens may go; later ones queue."""
        now = time.monotonic()
        turns = [max(now, free) for free in self.free]
        turn = max(turns)
        self.free = [turn + amount * pace for amount, pace in zip(amounts, self.pace, strict=True)]
        return turn


def size_of(payload):
    """Return bytes (int) of the texts in a request (dict), or of its ids."""
    texts = [payload.get("system") or ""] + [message["content"] for message in payload.get("messages", ())]
    texts += [payload["prompt"]] if "prompt" in payload else []
    return len(json.dumps(texts, ensure_ascii=False).encode())


def tokens_of(usage):
    """Return (input tokens, output tokens) of an answer's `usage` (dict), None if it does not say."""
    if not isinstance(usage, dict):
        return None
    for names in (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")):
        counts = [usage.get(name) for name in names]
        if all(isinstance(count, int) and count >= 0 for count in counts):
            return tuple(counts)
    return None


def _entry(line):
    """Return the three numbers of a line of a ledger; None of one that was cut off."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, list) and len(entry) == 3 else None

"""What requests to a server may cost: so many in a minute, and no more than a budget.

A Meter stands before every try of a request. Before it is sent, the most that it can cost is set aside: a
prompt's tokens are not known until the server has counted them, and are taken for no more than one for two
bytes, or more where the server has counted more. When the answer is there, what it cost is put in its place.
So a budget is never exceeded, and a little of it stays unspent.

What counts: every try is a call; tokens are those that the server reports. A try that is refused costs
nothing; one that gets no answer may have been worked on, and counts as the most that it can cost.

Budget and rates are one for all jobs that ever ask an endpoint: they ask one after the other, and what they
spend stands in a ledger before it is spent, so that a job that is killed is no gift.
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
# How much more than the most that was counted so far the next prompt may have, by byte.
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
        """Take what the ledger says for what was spent."""
        if self.ledger is None or not self.ledger.exists():
            return
        with open(self.ledger, encoding="utf-8") as file:
            entries = [entry for line in file if (entry := _entry(line))]
        self.calls, *self.tokens = map(sum, zip(*entries, strict=True)) if entries else (0, 0, 0)
        self.cost = self.price(*self.tokens)

    def spent(self):
        """What was spent, as text."""
        cost = f", {self.cost:.4f} by the config's prices" if any(self.prices) else ""
        return f"{self.calls} calls, {self.tokens[0]} tokens in and {self.tokens[1]} out{cost}"

    def estimate(self, sizes):
        """What calls with prompts of `sizes` bytes would be and cost, as text."""
        number, cost = self.left(sizes)
        return f"{number} calls" + (f", about {cost:.2f} by the config's prices" if any(self.prices) else "")

    def start(self, payload, wait):
        """What `end` must be given when the try of `payload` (dict) is over; waits for its turn.

        wait(seconds): sleeps, or returns earlier. Raises OverBudget, from then on for all.
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
        """Put what a try cost in the place of what was set aside.

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
        """(calls, cost) still to be made for prompts of `sizes` bytes, as estimated by those made."""
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
                    "this file system has no locks: other jobs that ask this endpoint spend apart", flush=True
                )
            yield

    def _turn(self, amounts):
        """time.monotonic() at which so many requests and tokens may go; the next ones wait for them."""
        now = time.monotonic()
        turns = [max(now, free) for free in self.free]
        turn = max(turns)
        self.free = [turn + amount * pace for amount, pace in zip(amounts, self.pace, strict=True)]
        return turn


def size_of(payload):
    """Bytes (int) of the texts in a request (dict), or of the ids in their place."""
    texts = [payload.get("system") or ""] + [message["content"] for message in payload.get("messages", ())]
    texts += [payload["prompt"]] if "prompt" in payload else []
    return len(json.dumps(texts, ensure_ascii=False).encode())


def tokens_of(usage):
    """(input tokens, output tokens) of an answer's `usage` (dict), None if it does not say."""
    if not isinstance(usage, dict):
        return None
    for names in (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")):
        counts = [usage.get(name) for name in names]
        if all(isinstance(count, int) and count >= 0 for count in counts):
            return tuple(counts)
    return None


def _entry(line):
    """The three numbers of a line of a ledger; None of one that was cut off."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, list) and len(entry) == 3 else None

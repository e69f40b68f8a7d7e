"""What requests to a server may cost: so many in a minute, and no more than a budget.

A Meter stands before every try of a request. Before it is sent, the most that it can cost is set aside: a
prompt's tokens are not known until the server has counted them, and are taken for no more than one for two
bytes, or more where the server has counted more. When the answer is there, what it cost is put in its place.
So a budget is never exceeded, and a little of it stays unspent.

What counts: every try is a call; tokens are those that the server reports. A try that is refused costs
nothing; one that gets no answer may have been worked on, and counts as the most that it can cost.
"""

import json
import threading
import time

# Tokens for a byte of a prompt: most that is expected before the server has counted any, and a usual number.
MOST_PER_BYTE, USUAL_PER_BYTE = 0.5, 0.25
# How much more than the most that was counted so far the next prompt may have, by byte.
MARGIN = 1.2
MILLION = 1e6


class OverBudget(Exception):
    """A request is not sent: with it, the budget could be exceeded."""


class Meter:
    """Rates and budget of one judge.

    max_tokens: longest answer; requests_per_minute, tokens_per_minute: 0 for no limit; input_price,
    output_price: of a million tokens; max_calls, max_cost: None for no limit, in the prices' currency.
    calls, cost, and tokens: spent so far, of which some may have been spent before (`add`).
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
    ):
        self.max_tokens = max_tokens
        self.pace = [
            60 / requests_per_minute if requests_per_minute else 0.0,
            60 / tokens_per_minute if tokens_per_minute else 0.0,
        ]
        self.free = [0.0, 0.0]  # when the next request may go, by number and by tokens
        self.prices = input_price, output_price
        self.max_calls, self.max_cost = max_calls, max_cost
        self.calls, self.cost, self.reserved, self.tokens = 0, 0.0, 0.0, [0, 0]
        self.per_byte, self.exhausted = MOST_PER_BYTE, False
        self.lock = threading.Lock()

    def price(self, input_tokens, output_tokens):
        """Cost (float) of so many tokens."""
        return (input_tokens * self.prices[0] + output_tokens * self.prices[1]) / MILLION

    def add(self, input_tokens, output_tokens):
        """Count a call of an earlier job."""
        self.calls += 1
        self.tokens[0] += input_tokens
        self.tokens[1] += output_tokens
        self.cost += self.price(input_tokens, output_tokens)

    def start(self, payload, wait):
        """What `end` must be given when the try of `payload` (dict) is over; waits for its turn.

        wait(seconds): sleeps, or returns earlier. Raises OverBudget, from then on for all.
        """
        size = size_of(payload)
        with self.lock:
            most = size * self.per_byte, self.max_tokens
            cost = self.price(*most)
            if self.exhausted or not self._fits(cost):
                self.exhausted = True
                raise OverBudget("the budget is used up")
            self.calls += 1
            self.reserved += cost
            turn = self._turn((1, sum(most)))
        delay = turn - time.monotonic()
        if delay > 0:
            wait(delay)
        return size, cost, sum(most)

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
                return
            self.tokens[0] += counted[0]
            self.tokens[1] += counted[1]
            self.cost += self.price(*counted)
            self.per_byte = max(self.per_byte, MARGIN * counted[0] / size)
            self.free[1] -= (most - sum(counted)) * self.pace[1]

    def left(self, sizes):
        """(calls, cost) still to be made for prompts of `sizes` bytes, as estimated by those made."""
        done = max(self.calls, 1)
        output = self.tokens[1] / done if self.tokens[1] else self.max_tokens / 2
        return len(sizes), sum(self.price(size * USUAL_PER_BYTE, output) for size in sizes)

    def _fits(self, cost):
        if self.max_calls is not None and self.calls + 1 > self.max_calls:
            return False
        return self.max_cost is None or self.cost + self.reserved + cost <= self.max_cost

    def _turn(self, amounts):
        """time.monotonic() at which so many requests and tokens may go; the next ones wait for them."""
        now = time.monotonic()
        turns = [max(now, free) for free in self.free]
        turn = max(turns)
        self.free = [turn + amount * pace for amount, pace in zip(amounts, self.pace, strict=True)]
        return turn


def size_of(payload):
    """Bytes (int) of the texts in a request (dict)."""
    texts = [payload.get("system") or ""] + [message["content"] for message in payload["messages"]]
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

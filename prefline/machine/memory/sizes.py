"""Read a model's size and shape from its directory: config.json, and the headers of its safetensors files."""

import dataclasses
import functools
import json
import math
import os
import re
from pathlib import Path

from prefline import files

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings", "embeddings", "wpe")
HEAD_NUMBERS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
LONGEST_HEADER = 10**8  # bytes, that the safetensors library reads
HEADS = ("lm_head", "embed_out", "output", "score", "classifier")
# Shapes that models of about a size (billions of parameters) have: hidden, layers, heads, KV heads,
# intermediate, vocabulary, tied embeddings.
TYPICAL = {
    0.5: (896, 24, 14, 2, 4864, 151_936, True),
    1.5: (1536, 28, 12, 2, 8960, 151_936, True),
    3: (2048, 36, 16, 2, 11_008, 151_936, True),
    8: (4096, 32, 32, 8, 14_336, 128_256, False),
    14: (5120, 48, 40, 8, 13_824, 152_064, False),
    32: (5120, 64, 40, 8, 27_648, 152_064, False),
    70: (8192, 80, 64, 8, 28_672, 128_256, False),
}


@dataclasses.dataclass(frozen=True)
class Linear:
    """A matrix of the model, or several of the same shape: (outputs, inputs), as in its files."""

    name: str  # the last part, such as q_proj
    outputs: int
    inputs: int
    number: int = 1


@dataclasses.dataclass(frozen=True)
class Model:
    """The size and shape of a causal language model or a classifier.

    linears: its matrices without embeddings, heads and experts; embedding, head, experts: parameters, head 0
    where it is the embedding; other: the rest, such as norms; exact: False where parameters are estimated.
    """

    name: str
    stored_bytes: int
    linears: tuple[Linear, ...]
    embedding: int
    head: int
    experts: int
    other: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int  # of one token: with experts, of all that it passes
    vocabulary: int
    context: int | None
    largest_tensor: int  # bytes, as stored
    largest_file: int  # bytes
    cached_width: int  # numbers that the KV cache keeps of a token in a layer
    exact: bool = True

    @property
    def linear(self):
        """Return the parameters (int) of `linears`."""
        return sum(each.outputs * each.inputs * each.number for each in self.linears)

    @property
    def parameters(self):
        """Return all parameters (int), a tied head once."""
        return self.linear + self.embedding + self.head + self.experts + self.other

    @property
    def query_width(self):
        return self.heads * self.head_dim

    @property
    def kv_width(self):
        return self.kv_heads * self.head_dim

    def adapters(self, peft):
        """Return the parameters (int) of LoRA by the config key `peft`."""
        return sum(peft["r"] * (each.outputs + each.inputs) * each.number for each in self.adapted(peft))

    def adapted(self, peft):
        """Return the matrices (list of Linear) that `peft.target_modules` names."""
        wanted = peft.get("target_modules") or ("q_proj", "v_proj")
        if wanted == "all-linear":
            return list(self.linears)
        if isinstance(wanted, str):
            return [each for each in self.linears if re.search(wanted, each.name)]
        return [each for each in self.linears if each.name in wanted]


def known(source):
    """Return the Model of a config's `source`, a directory or a hub:ID@COMMIT that is cached; else None."""
    if not source.startswith("hub:"):
        return of(source)
    repository, _, revision = source.removeprefix("hub:").partition("@")
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    return of(hub / f"models--{repository.replace('/', '--')}" / "snapshots" / revision, repository)


def of(directory, name=None):
    """Return the Model of a directory; None without config.json, and for files that are of no model.

    Without weights, which a training from scratch draws, parameters are estimated from the config.
    """
    directory = Path(directory)
    config = directory / "config.json"
    if not config.is_file():
        return None
    found = sorted(directory.glob("*.safetensors"))
    stamp = tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in (config, *found))
    try:
        return _of(directory, name or directory.name, stamp)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return None  # broken, or never a model's: fetch_model tells


@functools.cache
def _of(directory, name, stamp):
    config = files.read_json(directory / "config.json")
    paths = [directory / each for each, *_ in stamp[1:]]
    if not paths:
        return of_config(config, name)
    tensors = [(key, value) for path in paths for key, value in header(path).items()]
    shape = _shape(_completed(config, dict(tensors)))
    counts, linears = {"embedding": 0, "head": 0, "experts": 0, "other": 0}, {}
    packed = "quantization_config" in config
    for key, (dtype, dims) in tensors:
        size, parts = math.prod(dims), key.removesuffix(".weight").split(".")
        if packed and dtype in ("U8", "I8", "I32"):
            size *= 2 if dtype == "U8" else 8 if dtype == "I32" else 1
        if "experts" in parts and len(dims) >= 2:
            counts["experts"] += size
        elif parts[-1] in EMBEDDINGS:
            counts["embedding"] += size
        elif parts[-1] in HEADS and len(parts) <= 2:
            counts["head"] += size
        elif len(dims) == 2 and "norm" not in parts[-1] and not key.endswith(".bias"):
            linears[parts[-1], *dims] = linears.get((parts[-1], *dims), 0) + 1
        else:
            counts["other"] += size
    sizes = [BYTES.get(dtype, 1) * math.prod(dims) for _, (dtype, dims) in tensors]
    return Model(
        name=name,
        stored_bytes=sum(sizes),
        linears=tuple(Linear(*key, number) for key, number in sorted(linears.items())),
        largest_tensor=max(sizes),
        largest_file=max(path.stat().st_size for path in paths),
        **counts,
        **shape,
    )


def header(path):
    """Return {name: (dtype, shape)} of a safetensors file, dtype as the file has it, such as BF16."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LONGEST_HEADER:
            raise ValueError(f"{path}: a header of {length} bytes")
        found = json.loads(file.read(length))
    found.pop("__metadata__", None)
    return {name: (tensor["dtype"], tensor["shape"]) for name, tensor in found.items()}


def of_config(config, name):
    """Return the Model of a config.json (dict), with parameters of a decoder with gated layers."""
    text, shape = _text(config), _shape(config)
    hidden, layers, query = shape["hidden"], shape["layers"], shape["heads"] * shape["head_dim"]
    kv = shape["kv_heads"] * shape["head_dim"]
    experts = _first(text, "num_local_experts", "num_experts", "n_routed_experts") or 0
    dense = [("gate_proj", shape["intermediate"], hidden), ("up_proj", shape["intermediate"], hidden)]
    dense += [("down_proj", hidden, shape["intermediate"])]
    matrices = [("q_proj", query, hidden), ("k_proj", kv, hidden), ("v_proj", kv, hidden)]
    matrices += [("o_proj", hidden, query), *([] if experts else dense)]
    embedding = shape["vocabulary"] * hidden
    width = _first(text, "moe_intermediate_size", "intermediate_size") or 4 * hidden
    made = Model(
        name=name,
        stored_bytes=0,
        linears=tuple(Linear(*matrix, layers) for matrix in matrices),
        embedding=embedding,
        head=0 if text.get("tie_word_embeddings", config.get("tie_word_embeddings")) else embedding,
        experts=experts * layers * 3 * hidden * width,
        other=hidden * (2 * layers + 1),
        largest_tensor=2 * embedding,
        largest_file=0,
        exact=False,
        **shape,
    )
    stored = 2 * made.parameters
    return dataclasses.replace(made, stored_bytes=stored, largest_file=min(stored, 5 * 10**9))


def typical(billions):
    """Return the Model of a usual shape with about `billions` (float) of parameters, nearest in TYPICAL."""
    nearest = min(TYPICAL, key=lambda size: abs(math.log(size / billions)))
    hidden, layers, heads, kv_heads, intermediate, vocabulary, tied = TYPICAL[nearest]
    config = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 32_768,
    }
    return of_config(config, f"{nearest:g}B")


def _text(config):
    """Return the part of a config.json (dict) about the text."""
    return next((config[key] for key in ("text_config", "llm_config") if config.get(key)), config)


def _first(config, *names):
    """Return the first value of a config.json's keys that is not null; the largest where layers differ."""
    found = next((config[name] for name in names if config.get(name) not in (None, [])), None)
    return max(found) if isinstance(found, list) else found


def _completed(config, tensors):
    """Return a config.json (dict) with sizes that it leaves to the defaults of its architecture.

    Parts about the text often hold only what differs from these. tensors: {name: (dtype, shape)}.
    """
    shapes = {}
    for name, (_, dims) in tensors.items():
        parts = name.removesuffix(".weight").split(".")
        if not {"vision_tower", "vision_model", "visual", "audio_tower"} & set(parts):
            shapes.setdefault(parts[-1], dims)
    found, text = {}, _text(config)
    embedding = next((shapes[name] for name in EMBEDDINGS if len(shapes.get(name, ())) == 2), None)
    if embedding:
        found |= {"vocab_size": embedding[0], "hidden_size": embedding[1]}
    if "gate_proj" in shapes:
        found["intermediate_size"] = shapes["gate_proj"][0]
    layers = [re.search(r"\blayers?\.(\d+)\.self_attn\.q_proj", name) for name in tensors]
    query, key = shapes.get("q_proj"), shapes.get("k_proj")
    if query and key and any(layers):
        width = text.get("head_dim") or (shapes.get("q_norm") or [0])[0]
        found["num_hidden_layers"] = 1 + max(int(layer[1]) for layer in layers if layer)
        if width and query[0] % width == 0 and not _first(text, *HEAD_NUMBERS):
            found |= {"num_attention_heads": query[0] // width, "num_key_value_heads": key[0] // width}
            found["head_dim"] = width
    return found | {key: value for key, value in text.items() if value is not None}


def _shape(config):
    """Return fields of a Model (dict) that a config.json has, by the names that architectures use."""
    text = _text(config)
    hidden = _first(text, "hidden_size", "n_embd", "d_model", "dim") or 0
    heads = _first(text, *HEAD_NUMBERS) or 1
    layers = _first(text, "num_hidden_layers", "n_layer", "n_layers", "num_layers") or 1
    head_dim = _first(text, "head_dim", "v_head_dim") or hidden // heads
    kv_heads = _first(text, "num_key_value_heads", "num_kv_heads") or heads
    if text.get("multi_query") and not text.get("new_decoder_architecture"):
        kv_heads = 1
    intermediate = _first(text, "intermediate_size", "n_inner", "ffn_dim", "d_inner") or 4 * hidden
    chosen = _first(text, "num_experts_per_tok", "moe_topk", "experts_per_token")
    if chosen and _first(text, "num_local_experts", "num_experts", "n_routed_experts"):
        shared = text.get("n_shared_experts") or 0
        width = text.get("moe_intermediate_size") or intermediate
        intermediate = width * (chosen + shared) + (text.get("shared_expert_intermediate_size") or 0)
    latent = text.get("kv_lora_rank")
    return {
        "hidden": hidden,
        "layers": layers,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate": intermediate,
        "vocabulary": _first(text, "vocab_size") or 0,
        "context": _first(text, "max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
        "cached_width": latent + (text.get("qk_rope_head_dim") or 0) if latent else 2 * kv_heads * head_dim,
    }

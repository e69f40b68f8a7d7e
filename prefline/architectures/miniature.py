"""Build miniatures: models of a config's architecture that a CPU computes in milliseconds.

A miniature has the config's kinds of layers, attention, positions, scales, caps and noise. But it has few
and narrow layers, few experts and a small vocabulary. Windows, chunks and original contexts are a few
tokens long, so that a sequence of 30 tokens crosses each of them. If two ways of computing a miniature
differ, they differ for the model, too.
"""

import copy
import itertools
import math
import re

VOCABULARY = 96
CONTEXT = 64  # tokens, more than any sequence that is tried
WINDOW = 5  # tokens of a sliding window
CHUNK = 8  # tokens of a chunk or block
HEADS, WIDTH, HEAD_WIDTH = 4, 64, 16
LARGEST = 120_000_000  # parameters, 480 MB in float32, as much again for gradients

CAP = 2.0  # of logits, small enough to change them
# Keys of configs by meaning, over all architectures of transformers.
DEPTH = re.compile(r"num_(hidden_|decoder_|encoder_)?layers|n_layers?|(en|de)coder_layers|num_blocks")
TOKENS = re.compile(r".*(bos|eos|pad|sep|cls|mask|start|unk|eod|image|video|audio|boi|eoi).*_(id|ids|index)")
CONTEXTS = re.compile(
    r"max_position_embeddings|n_positions|n_ctx|max_seq_len|context_length|model_max_length"
    r"|max_target_positions"
)
WINDOWS = re.compile(
    r"(attention_)?(sliding_)?window(_size)?|local_attention|keep_window_size|index_topk|mem_len"
)
CHUNKS = re.compile(
    r"(mamba_|attention_)?chunk_size|block_size|index_block_size|floor_scale|(local|lsh)_attn_chunk_length"
)
ROUTED = re.compile(r"(num|n)_(routed_|local_)?experts|moe_num_experts|zero_expert_num")
CHOSEN = re.compile(r"num_experts_per_tok(en)?|moe_topk|moe_k|top_k_experts")
INNER = re.compile(
    r"(.*_)?(intermediate|feed_forward)_size(_mlp)?|(.*_)?ffn_dim|n_inner|(.*)ffn_hidden_size|dff|dim_ff|d_inner"
)
CAPS = re.compile(r".*soft_?cap(ping)?")
HEAD_COUNTS = re.compile(
    r"(num|n|swa_num|num_decoder|num_encoder)?_?((en|de)coder_)?attention_heads|n_heads?|num_heads"
)
KEY_HEADS = re.compile(r"(swa_)?num_key_value_heads|num_kv_heads|n_head_kv|num_query_groups")
HEAD_SIZES = re.compile(
    r"(swa_|global_)?head_dim|attention_head_(size|dim)|d_head|dim_head|kv_channels|v_head_dim"
)
PERIODS = re.compile(r".*(_period|_interval|_pattern|_every_n_layers|_step|_moe_layer_step)")
DENSE = ("first_k_dense_replace", "num_dense_layers")  # layers before those of experts
RECURRENT_HEADS = (
    ("mamba_n_heads", "mamba_d_head"),
    ("num_heads", "head_dim"),
    ("mamba_num_heads", "mamba_head_dim"),
    ("n_mamba_heads", "mamba_headdim"),
)
FIXED = {  # widths that belong together, of latent attention, recurrences and linear attention
    **{
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "qk_head_dim": 16,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
    },
    **{"mamba_d_state": 8, "state_size": 8, "ssm_state_size": 8, "mamba_n_groups": 1, "n_groups": 1},
    **{"mamba_dt_rank": 8, "time_step_rank": 8, "mamba_ngroups": 1},
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8},
    **{"linear_value_head_dim": 8, "linear_head_dim": 8, "linear_num_heads": 2},
    **{"index_head_dim": 16, "index_n_heads": 4, "rotary_dim": 8, "lru_width": WIDTH},
    **{
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 8,
        "n_group": 1,
        "topk_group": 1,
        "num_expert_group": 1,
    },
}


def of(config):
    """Return the smallest config of `config`'s architecture that makes a model; None if none does."""
    for shrink in (_narrow, _thin, _shallow):
        made = _made(config, shrink)
        if made is not None:
            return made
    return None


def build(config, seed=0, kernel="eager"):
    """Return a float32 model (attention `kernel`, eval mode, on the CPU) of a miniature's config.

    Its weights are random, and large enough for attention, gates and logits to be far from uniform.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), attn_implementation=kernel, dtype=torch.float32, trust_remote_code=False
        ).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                _spread(parameter)
        model.tie_weights()
    return model


def _made(config, shrink):
    """Return a miniature's config by `shrink`, or None if it makes no model, or no small one."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        small = type(config).from_dict(_shrunk(config.to_dict(), shrink))
        for own in (small, small.get_text_config(decoder=True)):
            own.use_cache = True
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                copy.deepcopy(small),
                attn_implementation="eager",
                dtype=torch.float32,
                trust_remote_code=False,
            )
        if sum(parameter.numel() for parameter in model.parameters()) > LARGEST:
            return None
        model = build(small)
        with torch.inference_mode():
            model(input_ids=torch.arange(2, 30)[None], use_cache=False)
    except Exception:  # the architecture may refuse these sizes in any way
        return None
    return small


def _shrunk(values, shrink):
    values = {
        key: _shrunk(value, shrink) if isinstance(value, dict) and "model_type" in value else value
        for key, value in values.items()
    }
    for key in ("quantization_config", "_name_or_path", "output_attentions"):  # no part of the architecture
        values.pop(key, None)
    _shorten(values)
    contexts = [value for key, value in values.items() if CONTEXTS.fullmatch(key) and value]
    context = max(contexts, default=None)  # windows of this length have no effect
    for key, value in values.items():
        if isinstance(value, bool):
            continue
        if key.endswith("rope_parameters") or key == "rope_scaling":
            values[key] = _positions(value)
        elif TOKENS.fullmatch(key) and value is not None:
            values[key] = [1] if isinstance(value, list) else 1
        elif CAPS.fullmatch(key) and value:
            values[key] = CAP
        elif not isinstance(value, int):
            continue
        elif key == "vocab_size" or ("vocab_size" in key and value > VOCABULARY):
            values[key] = VOCABULARY
        elif CONTEXTS.fullmatch(key) or key == "original_max_position_embeddings":
            values[key] = CONTEXT
        elif WINDOWS.fullmatch(key) and value > WINDOW:
            values[key] = WINDOW if context is None or value < context else CONTEXT
        elif CHUNKS.fullmatch(key) and value > CHUNK:
            values[key] = CHUNK
        elif ROUTED.fullmatch(key) and value > 8:
            values[key] = 8
        elif CHOSEN.fullmatch(key) and value > 2:
            values[key] = 2
    return shrink(values)


def _shallow(values):
    return values


def _thin(values):
    """Return `values` with narrow MLPs and experts."""
    return {
        key: 32 if INNER.fullmatch(key) and type(value) is int and value > 32 else value
        for key, value in values.items()
    }


def _narrow(values):
    """Return `values` with narrow layers, and few and small heads."""
    values = _thin(values)
    width = next(
        (values[key] for key in ("hidden_size", "n_embd", "d_model", "dim_model") if key in values), None
    )
    heads = next((values[key] for key in values if HEAD_COUNTS.fullmatch(key)), None)
    for key, value in values.items():
        if type(value) is not int:
            if key == "num_attention_heads_per_layer":
                values[key] = [HEADS] * len(value)
        elif value == width and (
            "hidden" in key or "embed" in key or "embd" in key or "model" in key or key.endswith("width")
        ):
            values[key] = WIDTH
        elif key == "attention_hidden_size":
            values[key] = WIDTH * value // width
        elif HEAD_COUNTS.fullmatch(key):
            values[key] = HEADS
        elif KEY_HEADS.fullmatch(key):
            values[key] = HEADS if value == heads else 1 if value == 1 else HEADS // 2
        elif HEAD_SIZES.fullmatch(key):
            values[key] = HEAD_WIDTH
        elif key in FIXED and value > FIXED[key]:
            values[key] = FIXED[key]
    if "qk_rope_head_dim" in values and "head_dim" in values:
        values["head_dim"] = values["qk_rope_head_dim"]
    for number, size in RECURRENT_HEADS:
        expand = values.get("mamba_expand", values.get("expand"))
        if expand and values.get(number) and size in values:
            values[number], values[size] = 8, int(expand * WIDTH) // 8
    if isinstance(values.get("mamba_d_ssm"), int):
        values["mamba_d_ssm"] = values["mamba_n_heads"] * values["mamba_d_head"]
    return values


def _shorten(values):
    """Keep the first layers, at least two and one of each kind, and their entries in lists."""
    depths = {key: value for key, value in values.items() if DEPTH.fullmatch(key) and type(value) is int}
    listed = {key: value for key, value in values.items() if isinstance(value, list) and len(value) > 1}
    # Lists of layers' numbers, and lists with an entry for each layer.
    numbers = {
        key: value
        for key, value in listed.items()
        if all(type(each) is int for each in value) and all(a < b for a, b in itertools.pairwise(value))
    }
    lists = {
        key: value for key, value in listed.items() if key not in numbers and len(value) in depths.values()
    }
    # The second of a kind, too: some share weights or a cache with the first.
    kinds = [
        [number for number, each in enumerate(value) if each == kind][:2][-1]
        for value in lists.values()
        for kind in {kind for kind in value if isinstance(kind, str | int)}
    ]
    kinds += [value[0] for value in numbers.values() if value[0] < max(depths.values(), default=0)]
    periods = [value for key, value in values.items() if PERIODS.fullmatch(key) and type(value) is int]
    dense = [value + 1 for key, value in values.items() if key in DENSE and value]
    depth = max([2, *(1 + last for last in kinds), *(value for value in periods if value <= 8), *dense])
    for key, value in numbers.items():
        if "layer" in key or "idx" in key:
            values[key] = [number for number in value if number < depth]
    for key, value in lists.items():
        values[key] = value[:depth]
    for key, value in depths.items():
        values[key] = min(value, depth)
    # Keys and values of the last layers are those of the layers before them, where each kind is once.
    if values.get("num_kv_shared_layers"):
        values["num_kv_shared_layers"] = min(values["num_kv_shared_layers"], depth // 2)
    if values.get("per_layer_config"):
        values["per_layer_config"] = {
            layer: own for layer, own in values["per_layer_config"].items() if int(layer) < depth
        }


def _positions(rope):
    """Return rotary positions whose original context is CONTEXT tokens."""
    if not isinstance(rope, dict):
        return rope
    made = {key: _positions(value) for key, value in rope.items()}
    if "original_max_position_embeddings" in made:
        made["original_max_position_embeddings"] = CONTEXT
    turned = int(HEAD_WIDTH * made.get("partial_rotary_factor", 1.0))  # of a head's width
    for key in ("short_factor", "long_factor"):
        if key in made:
            made[key] = made[key][: turned // 2]
    return made


def _spread(parameter):
    """Draw a parameter again if it was drawn around 0; add a little noise if it is constant."""
    import torch

    if parameter.ndim >= 2 and parameter.mean().abs() < 0.5 * parameter.std():
        fan_in = parameter.shape[-1] if parameter.ndim == 2 else math.prod(parameter.shape[1:])
        fan_in = (
            min(fan_in, parameter.shape[-1] * (parameter.shape[-2] if parameter.ndim > 3 else 1)) or fan_in
        )
        parameter.copy_(torch.randn_like(parameter) * 1.5 / math.sqrt(max(fan_in, 1)))
    elif parameter.is_floating_point():
        parameter.add_(torch.randn_like(parameter) * 0.1)

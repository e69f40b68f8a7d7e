"""How each causal family of the installed transformers is computed: the table of docs/architectures.md.

Configs are the defaults of their classes, which are those of a published model, completed where they leave
something out, and variants. prefline.architectures.miniature makes them small; tests/prefline/training/
test_architectures.py holds every one against whole sequences, one at a time.

    python -m measurements.architectures --out docs/architectures.md
"""

import re
import textwrap
import warnings
from pathlib import Path

from prefline import files
from prefline.config import section
from prefline.errors import InputError

BEGIN, END = "<!-- made by measurements/architectures.py -->", "<!-- end -->"
HEADER = """| family | pairs and log-probabilities | attention | completions | other trainings | why |
|---|---|---|---|---|---|"""
FASTEST = ["packed", "sdpa", "batched", "", ""]
REFUSED, UNTRIED = "refused", "not tried"
PARTS = ("### Refused", "### Slower, or with a limit", "### Packed, the fastest way", "### Not tried")

# What a family's defaults leave out or switch off, and published models have.
HYBRID = {"num_hidden_layers": 4}
COMPLETED = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        "num_hidden_layers": 4,
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"] * 2,
        "num_hidden_layers": 4,
        "num_local_experts": 4,
    },
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 4, "moe_topk": 2},
    "lfm2_moe": HYBRID | {"layer_types": ["conv", "full_attention"] * 2},
    "ministral": {"head_dim": 128},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "xmod": {"default_language": "en_XX"},
    "nemotron": {"num_key_value_heads": 8},
}
# Decoders among models that are encoders by default.
DECODERS = ("bert", "roberta", "electra")
ROPE = {"rope_theta": 10000.0}
WINDOWED = {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 4096}
VARIANTS = {
    "llama, dynamic NTK": ("llama", {"rope_parameters": {**ROPE, "rope_type": "dynamic", "factor": 4.0}}),
    "llama, yarn": (
        "llama",
        {
            "rope_parameters": {
                **ROPE,
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 2048,
            }
        },
    ),
    "phi3, longrope": (
        "phi3",
        {
            "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096,
            "rope_parameters": {
                **ROPE,
                "rope_type": "longrope",
                "short_factor": [1.0 + 0.02 * place for place in range(48)],
                "long_factor": [2.0 + 0.5 * place for place in range(48)],
                "original_max_position_embeddings": 4096,
            },
        },
    ),
    "phi3, window": ("phi3", {"sliding_window": 2047}),
    "phimoe, noise": ("phimoe", {"input_jitter_noise": 0.1, "router_jitter_noise": 0.1}),
    "phimoe, window": ("phimoe", {"sliding_window": 2047}),
    "mixtral, noise": ("mixtral", {"router_jitter_noise": 0.1}),
    "mistral, window": ("mistral", {"sliding_window": 4096}),
    "qwen2, window": ("qwen2", WINDOWED),
    "qwen2_moe, window": (
        "qwen2_moe",
        WINDOWED,
    ),
    "qwen3_moe, window": (
        "qwen3_moe",
        WINDOWED,
    ),
    "falcon, ALiBi": ("falcon", {"alibi": True, "new_decoder_architecture": False, "multi_query": True}),
    "opt, narrow embeddings": ("opt", {"do_layer_norm_before": False}),
    **{f"{name}, decoder": (name, {"is_decoder": True}) for name in DECODERS},
}


def names():
    """Return the names (list of str) of all families, then of the variants."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return [*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *VARIANTS]


def config(name, **more):
    """Return the config of a name of `names`; more: other values of its keys."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    family, changes = VARIANTS.get(name, (name, {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CONFIG_MAPPING[family](**COMPLETED.get(family, {}) | changes | more)


def model(name, **more):
    """Return a miniature (float32, eval mode) of a name of `names`; more: as in `config`."""
    from prefline.architectures import miniature

    return miniature.build(miniature.of(config(name, **more)))


# Families without a model to try, and why.
NOT_BUILT = {
    "blt": "reads bytes by way of a second model, whose sizes its config does not have",
    "cohere_compass_text": "its defaults lack rotary positions",
    "gemma3n": "needs the package timm; its language model is gemma3n_text",
    "gemma4_assistant": "drafts for another model",
    "gemma4_unified_assistant": "drafts for another model",
    "musicgen": "has no config without a text encoder's",
    "musicgen_melody": "has no config without a text encoder's",
    "qwen4_exp": "its defaults lack the sizes of its indexer",
    "qwen4_exp_text": "its defaults lack the sizes of its indexer",
}


# Exceptions of transformers as the table has them.
EXCEPTIONS = (
    (r"ValueError: \w+ does not support an attention implementation .*", "transformers has no sdpa for it"),
    (r"(\w+Error): .*", r"transformers raises \1"),
)


def plain(reason):
    """Return a reason (str) as the table has it: without an exception's text, and with plain numbers."""
    for pattern, words in EXCEPTIONS:
        reason = re.sub(pattern, words, reason, flags=re.DOTALL)
    return re.sub(r"\d\.\de[+-]\d\d", lambda number: f"{float(number[0]):g}", reason)


def row(name):
    """Return what the page has on a name of `names`: [name, how pairs are computed, …, why], list of str."""
    from prefline.architectures import exact, miniature
    from prefline.training import probe

    if name in NOT_BUILT:
        return [name, UNTRIED, "", "", "", NOT_BUILT[name]]
    small = miniature.of(config(name))
    try:
        found, sides = probe.summary(small), probe.inspect(small)
    except InputError as error:
        reason = str(error).partition(": ")[2].removesuffix("; take a model of another architecture")
        return [name, REFUSED, "", "", "", plain(reason)]
    sequences, completions = found["sequences"], found["completions"]
    notes = []
    if sequences != "packed":
        notes.append(f"not packed: {probe.inspect(small)['ways']['packed']['sdpa']}")
    if completions != "batched":
        notes.append(f"not batched: {exact.inspect(small)['decoding']['batched'][found['attention']]}")
    if found["attention"] != "sdpa":
        notes.append(f"not sdpa: {exact.inspect(small)['attention']['sdpa']}")
    if sides["noisy"]:
        notes.append(f"{', '.join(sides['noisy'])}: in eval mode while training")
    limit = exact.longest(config(name))
    if limit:
        notes.append(f"longer sequences than {limit} tokens are refused")
    others = [
        f"{trainings} refused"
        for side, trainings in (("right", "sft, kto"), ("left", "rloo, grpo, ppo"))
        if (sides[side] or "").startswith("no: ")
    ]
    why = "; ".join(map(plain, notes))
    cells = [name, sequences, found["attention"], completions, ", ".join(others), why]
    return [cell.replace("|", " ") for cell in cells]


def listed(rows):
    """Return the part of the page that is made (Markdown) from all rows, list of `row`."""
    refused, slower, fastest, untried = {}, [HEADER], [], []
    for name, way, *cells in rows:
        if way == REFUSED:
            refused.setdefault(cells[-1], []).append(name)
        elif way == UNTRIED:
            untried.append(_line([name, cells[-1]]))
        elif [way, *cells] == FASTEST:
            fastest.append(name)
        else:
            slower.append(_line([name, way, *cells]))
    lines = [_line([" · ".join(names), why]) for why, names in refused.items()]
    found = (["| families | why |", "|---|---|", *lines], slower, textwrap.wrap(" · ".join(fastest), 110))
    found = (*found, ["| family | why |", "|---|---|", *untried])
    return "\n\n".join(f"{part}\n\n" + "\n".join(lines) for part, lines in zip(PARTS, found, strict=True))


def rows(page):
    """Return all rows (list of `row`) of a page, the inverse of `listed`."""
    text, found = page.partition(BEGIN)[2].partition(END)[0], []
    refused, slower, fastest, untried = re.split("|".join(PARTS), text)[1:]
    found += [[name, *FASTEST] for name in " ".join(fastest.split()).split(" · ")]
    for way, part in ((REFUSED, refused), (UNTRIED, untried)):
        for families, why in _cells(part):
            found += [[name, way, "", "", "", why] for name in families.split(" · ")]
    return found + _cells(slower)


def _line(cells):
    return f"| {' | '.join(cells)} |"


def _cells(table):
    """Return the cells of a table's rows: list of lists of str."""
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--out", required=True, help="page (markdown) whose table is written anew")
    args = parser.parse_args(argv)
    page = Path(args.out).read_text(encoding="utf-8")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    files.write_text(args.out, f"{before}{BEGIN}\n\n{listed(map(row, names()))}\n\n{END}{after}")


if __name__ == "__main__":
    main()

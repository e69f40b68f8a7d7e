"""Files of model directories that somebody else wrote: broken, of wrong types, endless.

{name of a case: {file: its bytes; None removes it}}, to lay over a good model.
"""

import json

NO_JSON = ("[1]", "{", "3", "null", '"a"', '{"a": ' + "9" * 5000 + "}", "[" * 100_000, "\xff")
CONFIG = {
    "auto_map": (3, "x", [1], {"AutoConfig": 3}, {"AutoConfig": {}}, {"1": 2}, True),
    "eos_token_id": ("text", 999_999, -5, [1, "a"], {}, 1.5, True),
    "vocab_size": ("a", -1, 10**12, 0, None),
    "architectures": ("x", 3, [3], [None], {}),
    "model_type": (3, None, "nosuch", [1], {}),
    "hidden_size": ("a", 0, -1, None, 33),
    "num_hidden_layers": (10**9, "a", -1, None),
    "num_attention_heads": (0, "a", 3, None),
    "quantization_config": ("x", 3, []),
    "num_labels": (10**9,),
    "dtype": ("nosuch", 3, []),
    "rope_parameters": ("x", [], {"rope_type": "nosuch"}),
    "text_config": ("x", 3),
    "hidden_act": ("nosuch", 3),
    "tie_word_embeddings": ("x", 3),
    "id2label": ("x", 3),
}
TOKENIZER_CONFIG = {
    "eos_token": (3, {"a": 1}),
    "tokenizer_class": (3, "LlamaTokenizer"),
    "auto_map": (3,),
    "chat_template": (3, [3], [{"name": 3}], {"a": "b"}, [{"name": "default", "template": 3}], "a\ud800"),
    "model_max_length": ("x",),
    "added_tokens_decoder": (3, {"a": {"content": "b"}}),
    "reasoning_markers": (3, ["a"]),
    "extra_special_tokens": (3,),
    "padding_side": (3,),
}
GENERATION = ("text", 999_999, [-1], {"a": 1}, [[1]], 1.5, True)
INDEXES = (
    *({}, [], 3, {"weight_map": None}, {"weight_map": [1]}, {"weight_map": {}}, {"weight_map": {"a": 3}}),
    *({"weight_map": {"a": "../x"}}, {"weight_map": {"a": None, "b": "c"}}),
)
TOKENIZERS = ("[1]", "{", "3", "\xff", "{}", '{"model": null}', '{"model": {"type": "NoSuch"}}')
SPECIAL = ("[1]", "{", "3", "\xff", '{"eos_token": 3}', '{"eos_token": {"content": 3}}')
TEMPLATES = (
    *("{{ 1 // 0 }}", "{{ 1 / 0 }}", "{% for", "{{ '\\ud800' }}", "\xff", "", "{{ messages.x.y }}"),
    *("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "{{ raise_exception(3) }}", "{{ raise_exception }}"),
    *("{% include 'x' %}", "{% import '/etc/passwd' as x %}", "{% extends 'x' %}", "{{ range(10**9) }}"),
    *("{{ ''.__class__.__mro__ }}", "{{ 10**5000 }}", "{{ messages|map(attribute='x')|sum }}"),
    "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
)
# Templates that compute for ever or fill the memory, and what is said of each.
ENDLESS = {
    "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}": "computes for more",
    "{{ 2 ** (2 ** 33) }}": "computes for more",
    "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x*2 %}{% endfor %}": (
        "needs more than 1 GiB"
    ),
    "{{ 'a' * 10 ** 10 }}": "needs more than 1 GiB",
    "{{ 'a' | center(10 ** 11) }}": "needs more than 1 GiB",
    "{{ 'a' * (2 * 10 ** 7) }}": "writes 20000000 characters",
}
WEIGHTS = {
    "huge": (2**62).to_bytes(8, "little") + b"{}",
    "list": (3).to_bytes(8, "little") + b"[1]",
    "short": b'{"a":{"dtype":"F32","shape":[10],"data_offsets":[0,4000]}}',
    "dtype": b'{"a":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}}',
    "nothing": b"{}",
}
# Names that a pattern of the tokenizer's files takes, with endings of programs and pickles.
PROGRAMS = [
    f"tokenizer{ending}"
    for ending in (
        *(".py", ".PY", ".Py", ".pyc", ".so", ".SO", ".dll", ".dylib", ".pyd", ".pkl", ".PKL", ".pickle"),
        *(
            ".joblib",
            ".dill",
            ".npy",
            ".npz",
            ".bin",
            ".pt",
            ".PTH",
            ".ckpt",
            ".sh",
            ".exe",
            ".pkl.gz",
            ".py.x",
        ),
    )
]


def cases(model):
    """Return {name: {file: bytes or None}} of all kinds; model: the directory (Path) of a good one."""
    config, tokenizer = (
        json.loads((model / name).read_text()) for name in ("config.json", "tokenizer_config.json")
    )
    made = {}
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        made |= {f"{name} {text[:9]}": {name: text.encode("latin-1")} for text in NO_JSON}
    for name, good, changes in (
        ("config.json", config, CONFIG),
        ("tokenizer_config.json", tokenizer, TOKENIZER_CONFIG),
    ):
        for key, values in changes.items():
            more = {"chat_template.jinja": None} if key == "chat_template" else {}
            made |= {
                f"{name} {key}={value!a}": {name: json.dumps(good | {key: value}).encode()} | more
                for value in values
            }
    for ends in GENERATION:
        text = json.dumps({"eos_token_id": ends}).encode()
        made[f"generation_config.json {ends!r}"] = {"generation_config.json": text}
    index = "model.safetensors.index.json"
    for value in INDEXES:
        made[f"index {value}"] = {index: json.dumps(value).encode(), "model.safetensors": None}
    for name, texts in (
        ("tokenizer.json", TOKENIZERS),
        ("special_tokens_map.json", SPECIAL),
        ("chat_template.jinja", TEMPLATES),
    ):
        made |= {f"{name} {text[:40]!a}": {name: text.encode("latin-1")} for text in texts}
    for name, content in WEIGHTS.items():
        framed = content if name in ("huge", "list") else len(content).to_bytes(8, "little") + content
        made[f"weights {name}"] = {"model.safetensors": framed}
    return made

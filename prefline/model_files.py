"""Find the mistake in the JSON files of a model directory, which somebody else may have written.

Libraries end in tracebacks, or compute for hours, on values that no model has. So their types are checked
before a library reads them, also while jobs are planned.
"""

import json
from pathlib import Path

# Files that are small; tokenizer.json is read by the tokenizer's library only.
SMALL = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
# Keys of config.json by which libraries build lists; no model has so many layers or labels.
COUNTS = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "encoder_layers",
    "decoder_layers",
    "num_labels",
)
MOST = 100_000


def mistake(directory):
    """Return the mistake (str) in the small JSON files of a model directory (Path); None if there is none."""
    found = {}
    for name in SMALL:
        path = Path(directory, name)
        if path.is_file():
            found[name] = read(path)
            if not isinstance(found[name], dict):
                return f"its {name} is not a JSON object; fetch the model again"
    config = found.get("config.json", {})
    wrong = [(f"config.json: {key}", words) for key, words in _of_config(config)]
    ends = found.get("generation_config.json", {})
    wrong += [
        (f"{name}: eos_token_id", _of_ends(name, each, config))
        for name, each in (("config.json", config), ("generation_config.json", ends))
        if _of_ends(name, each, config)
    ]
    wrong += [
        (f"tokenizer_config.json: {key}", words)
        for key, words in _of_tokenizer(found.get("tokenizer_config.json", {}))
    ]
    return f"its {wrong[0][0]} is {wrong[0][1]}; correct it, or take another revision" if wrong else None


def read(path):
    """Return what a JSON file holds; None if it cannot be read as JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None


def shards(path):
    """Return the names (sorted list of str) of the files in an index of weights; None if it is no index."""
    index = read(path)
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict) or not named or not all(isinstance(one, str) for one in named.values()):
        return None
    return sorted(set(named.values()))


def _of_config(config):
    """Yield (key, what its value is not, as words) for the mistakes in a config.json (dict)."""
    if not isinstance(config.get("model_type", ""), str):
        yield "model_type", "not a text"
    if not _is_list(config.get("architectures"), str):
        yield "architectures", "not a list of names"
    if not isinstance(config.get("quantization_config"), dict | None):
        yield "quantization_config", "not an object"
    if not _is_auto_map(config.get("auto_map")):
        yield "auto_map", "not an object with the names of classes"
    for section in (config, *(one for one in config.values() if isinstance(one, dict))):
        for key in COUNTS:
            if isinstance(section.get(key), int | float) and section[key] > MOST:
                yield key, f"{section[key]}, where {MOST} are the most"


def _is_auto_map(value):
    if value is None:
        return True
    names = value.values() if isinstance(value, dict) else [3]
    return all(isinstance(one, str | None) or (one and _is_list(one, str | None)) for one in names)


def _of_ends(name, config, model):
    """Return what the eos_token_id of a config (dict) is not (str), "" if it is right; model: config.json."""
    ends = config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(type(one) is int for one in ends):
        return "not the number of a token, or a list of them"
    text = model.get("text_config")
    rows = {**(text if isinstance(text, dict) else {}), **model}.get("vocab_size")
    outside = [one for one in ends if type(rows) is int and not 0 <= one < rows]
    return f"{outside[0]}, which is outside of the vocabulary of {rows}" if outside else ""


def _of_tokenizer(config):
    template, markers = config.get("chat_template"), config.get("reasoning_markers")
    if isinstance(template, list):
        names = [one.get(key) for one in template if isinstance(one, dict) for key in ("name", "template")]
        right = all(isinstance(one, dict) for one in template) and all(isinstance(one, str) for one in names)
    else:
        right = isinstance(template, str | None)
    if not right:
        yield "chat_template", "neither a text nor a list with names and templates"
    if not (markers is None or (_is_list(markers, str) and len(markers) == 2)):
        yield "reasoning_markers", "not a list of two texts"
    if not isinstance(config.get("tokenizer_class"), str | None):
        yield "tokenizer_class", "not a text"
    if not isinstance(config.get("model_max_length"), int | float | None):
        yield "model_max_length", "not a number"


def _is_list(value, kind):
    return value is None or (isinstance(value, list) and all(isinstance(one, kind) for one in value))

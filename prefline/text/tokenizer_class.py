"""Choose the class that loads a tokenizer, and check that it reads text as the model's tokenizer.json does.

The transformers library takes the class from tokenizer_class and, for some models, from model_type. A class
may replace the way in which tokenizer.json splits text: then all ids are other than those that the model was
trained on, without an error.
"""

import shutil
import tempfile
from pathlib import Path

from prefline import files
from prefline.errors import InputError

# Two names of the class that reads everything from tokenizer.json.
PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
CONFIG = "tokenizer_config.json"
BEFORE = "a "
SAMPLES = (
    "two words and 2 numbers",
    "123456 7.5",
    "I'LL don't WE'VE",
    "naïve 東京 です Zażółć",
    "caf\u00e9 cafe\u0301",
    "def f(x):\n    return x\n\n\nprint(f(1))",
)


def of(path):
    """Return the class that loads the tokenizer of `path`: AutoTokenizer, or the class that it would choose.

    AutoTokenizer imports torch and the models library, which takes longer than most work on tokens. A Llama
    whose config names no other class does not need them.
    """
    configs = [Path(path, name) for name in ("config.json", CONFIG)]
    if all(config.is_file() for config in configs):
        model, tokenizer = map(files.read_json, configs)
        named = tokenizer.get("tokenizer_class")
        if model.get("model_type") == "llama" and named in PLAIN_CLASSES and "auto_map" not in tokenizer:
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def check(directory, source):
    """Raise InputError if the tokenizer that is loaded reads SAMPLES otherwise than its tokenizer.json.

    directory: the model's, of which errors say `source`. A tokenizer that cannot be read is not checked here
    (chat.load_tokenizer refuses it).
    """
    path = Path(directory, "tokenizer.json")
    if not path.is_file():
        return
    from tokenizers import Tokenizer

    try:
        own = Tokenizer.from_file(str(path))
        loaded = of(directory).from_pretrained(directory, trust_remote_code=False)
    except Exception:  # the libraries refuse files in many ways
        return
    text = differs(own, loaded)
    if text is None:
        return
    named = _read(directory, CONFIG).get("tokenizer_class")
    model_type = _read(directory, "config.json").get("model_type")
    if _works(directory, own, PLAIN_CLASSES[0]):
        advice = f"set tokenizer_class in {CONFIG} to {PLAIN_CLASSES[0]}"
    else:
        advice = (
            f"tokenizer_class: {PLAIN_CLASSES[0]} in {CONFIG} does not correct this for the model_type "
            f"{model_type}, so take a model whose tokenizer fits its model_type"
        )
    raise InputError(
        f"{source}: transformers loads its tokenizer as {type(loaded).__name__} (tokenizer_class {named}, "
        f"model_type {model_type}), which gives other ids for {text!r} than its tokenizer.json; {advice}"
    )


def differs(own, loaded):
    """Return the first of SAMPLES (str) of which two tokenizers give other ids; None if there is none.

    own: tokenizers.Tokenizer; loaded: one of transformers.
    """
    for text in SAMPLES:
        # The first token may differ: settings such as add_prefix_space are in tokenizer_config.json alone.
        behind = BEFORE + text
        ids = own.encode(behind, add_special_tokens=False).ids
        if loaded(behind, add_special_tokens=False)["input_ids"][1:] != ids[1:]:
            return text
    return None


def _read(directory, name):
    path = Path(directory, name)
    return files.read_json(path) if path.is_file() else {}


def _works(directory, own, name):
    """Tell whether the tokenizer of `directory` is read as its file if its tokenizer_class is `name`."""
    with tempfile.TemporaryDirectory() as made:
        shutil.copyfile(Path(directory, "tokenizer.json"), Path(made, "tokenizer.json"))
        files.write_json(Path(made, "config.json"), _read(directory, "config.json"))
        files.write_json(Path(made, CONFIG), _read(directory, CONFIG) | {"tokenizer_class": name})
        try:
            loaded = of(made).from_pretrained(made, trust_remote_code=False)
        except Exception:  # the libraries refuse files in many ways
            return False
        return differs(own, loaded) is None

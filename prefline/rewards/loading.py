"""Load models, and refuse those with weights missing from their files: a random head gives random scores."""

import re
from pathlib import Path

from prefline.architectures import exact
from prefline.errors import InputError
from prefline.text import chat


def load(auto, model, own_code=False, shapes_only=False, **options):
    """Return the model of the directory `model`, in the dtype of its files, on the CPU.

    auto: name (str) of a class of transformers. own_code: whether the model's own code runs. shapes_only:
    read no weights, but their names and shapes: the model is on the device `meta`. options: of its config.
    Raises InputError where weights are missing or have another shape than the model's, and, with shapes_only,
    for a model that cannot be loaded at all.
    """
    import transformers
    from transformers.utils import logging

    config = read_config(model)
    if not shapes(model):
        raise InputError(f"{model}: has no weights (safetensors); a reward model is a trained one")
    if shapes_only:
        options["device_map"] = "meta"
    else:
        options |= exact.overrides(config)
    if own_code:
        # Code for transformers 4 may end without post_init(), which sets this in transformers 5.
        transformers.PreTrainedModel.all_tied_weights_keys = {}
    logging.disable_progress_bar()
    said = logging.get_verbosity()
    logging.set_verbosity_error()  # the library's report of missing weights is this function's own error
    try:
        loaded = getattr(transformers, auto).from_pretrained(
            model,
            dtype="auto",
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=own_code,
            **options,
        )
    except Exception as error:  # a model's own code can raise anything
        if not shapes_only:
            raise
        raise InputError(f"{model}: transformers cannot load it: {first_line(error)}") from None
    finally:
        logging.set_verbosity(said)
    if not isinstance(loaded, tuple):
        raise InputError(
            f"{model}: its code loads the weights in its own way and hides which of them are missing; remove "
            "`from_pretrained` from it"
        )
    found, report = loaded
    wrong = sorted(report["missing_keys"] | {name for name, *_ in report["mismatched_keys"]})
    if wrong:
        raise InputError(
            f"{model}: lacks the weights {', '.join(wrong[:3])}{' …' if len(wrong) > 3 else ''} of a "
            f"{type(found).__name__}, or has them in another shape; a trained model has them all"
        )
    return found


def read_config(model):
    """Return the transformers config of the directory `model`; InputError where there is none to be read."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(model, trust_remote_code=brings_code(model))
    except Exception as error:  # broken json, unknown types, the model's own code
        raise InputError(f"{model}: its config.json cannot be read: {first_line(error)}") from None


def tokenizer(model):
    """Return the tokenizer of the directory `model`; InputError where that is broken or untemplated."""
    try:
        return chat.load_tokenizer(model)
    except InputError:
        raise
    except Exception as error:  # broken files may raise anything
        raise InputError(f"{model}: its tokenizer cannot be loaded: {first_line(error)}") from None


def brings_code(model):
    """Return whether the directory `model` has Python files, which only remote_code takes."""
    return any(Path(model).glob("*.py"))


def first_line(error):
    """Return an exception's type and first line (str)."""
    lines = str(error).strip().splitlines() or ["no more is known"]
    return f"{type(error).__name__}: {lines[0].split('. ')[0][:200]}"


def shapes(model):
    """Return {name: shape (list of int)} of the weights in the directory `model`; no tensor is read."""
    from safetensors import safe_open

    found = {}
    for path in sorted(Path(model).glob("*.safetensors")):
        if path.name == "adapter_model.safetensors":  # no model's own
            continue
        with safe_open(path, "numpy") as file:
            found |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return found


def heads(model):
    """Return the names (sorted list of str) of the weights in `model` that make one number of a hidden state.

    Gates within layers, which make one number, too, are none of them.
    """
    found = shapes(model)
    widths = {shape[1] for name, shape in found.items() if "embed" in name and len(shape) == 2}
    return sorted(
        name
        for name, shape in found.items()
        if len(shape) == 2 and shape[0] == 1 and shape[1] in widths and not re.search(r"\.\d+\.", name)
    )

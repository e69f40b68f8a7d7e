"""Check that the weights of a model directory are those of the architecture that its config names.

For a missing or misnamed weight, transformers draws noise, warns, and returns a model. So names and shapes
from the headers of the files are compared with the architecture on the meta device, by the library's own
renaming. This needs no memory for the model. NaN, infinite and zero weights are searched tensor by tensor.
"""

import json
from pathlib import Path

from prefline import files
from prefline.errors import InputError

NAMED = 3  # tensors in a message
# Endings of architectures with the head of policies and reward models.
HEADS = ("ForCausalLM", "LMHeadModel", "ForSequenceClassification", "ForConditionalGeneration")


def check(source, directory, names=True):
    """Raise InputError unless the weights of `directory`, if it has any, fit its config and are finite.

    source: str, the model's name in messages. Without `names`, and for quantized weights, whose names vary,
    only the numbers are checked. Architectures that the library lacks are not checked.
    """
    from transformers import AutoConfig

    directory = Path(directory)
    shards = _shards(source, directory)
    if not shards:
        return
    settings = files.read_json(directory / "config.json")
    if settings.get("auto_map") and any(directory.glob("*.py")):
        return  # its own code defines its weights
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # the library refuses values in many ways
        said = " ".join(str(error).split())
        raise InputError(f"{source}: config.json: {said:.200}") from None
    cls, headers = _architecture(config), [_header(shard) for shard in shards]
    _check_once(source, shards, headers)
    if not _quantized(settings):
        _check_numbers(source, shards, headers)
        if names and cls is not None:
            _check_names(source, cls, config, shards, headers)
    for shard in shards:
        _check_values(source, shard)


def refuse_missing(source, cls, loading):
    """Raise InputError if the library drew missing weights when it loaded `source` as a `cls`.

    loading: its output_loading_info. The head of a new classifier may be missing.
    """
    missing = sorted(loading["missing_keys"])
    if "SequenceClassification" in cls.__name__:
        missing = [name for name in missing if not name.startswith(("score.", "classifier."))]
    if missing:
        raise InputError(f"{source}: lacks weights of a {cls.__name__}: {_some(missing)}; take another model")


def _shards(source, directory):
    """Return the files (list of Path) from which the library reads weights."""
    index = directory / "model.safetensors.index.json"
    if (directory / "model.safetensors").is_file():
        return [directory / "model.safetensors"]
    if index.is_file():
        return [directory / name for name in sorted(set(files.read_json(index)["weight_map"].values()))]
    others = sorted(path.name for path in directory.glob("*.safetensors"))
    if others:
        raise InputError(
            f"{source}: has {others[0]}, but neither model.safetensors nor model.safetensors.index.json, "
            "which the transformers library reads; rename it, or convert the model"
        )
    return []


def _architecture(config):
    """Return the class of the weights; None if the library has none."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    for name in config.architectures or []:
        if name.endswith(HEADS):
            return getattr(transformers, name, None)
    return MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)


def _quantized(settings):
    """Return whether a config.json (dict) says that the files have quantized weights."""
    found = settings.get("quantization_config")
    if not found or found.get("quant_method") != "bitsandbytes":
        return bool(found)
    return bool(found.get("load_in_4bit") or found.get("load_in_8bit"))


def _check_once(source, shards, headers):
    """Raise InputError for a tensor that two files have: each library takes another one."""
    found = {}
    for shard, header in zip(shards, headers, strict=True):
        for name in header:
            if name in found:
                raise InputError(
                    f"{source}: {name} is in {found[name]} and in {shard.name}; remove one, or take another "
                    "revision"
                )
            found[name] = shard.name


def _check_numbers(source, shards, headers):
    """Raise InputError for numbers of 8 bits, which mean nothing without their scales."""
    for shard, header in zip(shards, headers, strict=True):
        for name, (_, dtype) in header.items():
            if str(dtype).startswith(("torch.int8", "torch.float8")):
                raise InputError(
                    f"{source}: {shard.name}: {name} is {str(dtype).removeprefix('torch.')}, but config.json "
                    "has no quantization_config; take another revision, or complete config.json"
                )


def _check_names(source, cls, config, shards, headers):
    """Raise InputError unless the files have the names and shapes of the weights of `cls`."""
    import torch
    from transformers.utils import logging

    weights = {
        name: torch.empty(shape, dtype=dtype, device="meta")
        for header in headers
        for name, (shape, dtype) in header.items()
    }
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        model, loading = cls.from_pretrained(
            None,
            trust_remote_code=False,
            use_safetensors=True,
            config=config,
            state_dict=weights,
            device_map={"": "meta"},
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{source}: no {cls.__name__} is as its config.json describes it "
            f"({type(error).__name__}: {error!s:.200}); correct it, or take another revision"
        ) from None
    except RuntimeError:  # weights of experts that are put together, of which some are missing
        raise InputError(
            f"{source}: its weights do not fit {cls.__name__}, as config.json describes it: some are "
            "missing or misshapen; take another revision, or correct the names of the weights or config.json"
        ) from None
    finally:
        logging.set_verbosity(verbosity)
    masks = {buffer for buffer, _ in model.named_buffers()} - set(model.state_dict())
    for kind, words in (("missing_keys", "lacks"), ("unexpected_keys", "has, where none belong,")):
        names = sorted(name for name in loading[kind] if not _recomputed(name, masks))
        if names:
            raise InputError(
                f"{source}: its weights do not fit {cls.__name__}, as config.json describes it: it {words} "
                f"{_some(names)}; take another revision, or correct the names of the weights or config.json"
            )
    for name, found, wanted in sorted(loading["mismatched_keys"]):
        raise InputError(
            f"{source}: its weights do not fit {cls.__name__}, as config.json describes it: {name} is "
            f"{list(found)}, not {list(wanted)}; take another revision, or correct config.json"
        )
    _check_tied(source, model, shards, headers)


def _recomputed(name, masks):
    """Return whether `name` is a mask of old files, which is computed today; masks: names of these."""
    return name.endswith(".masked_bias") or any(f".{mask}".endswith(f".{name}") for mask in masks)


def _check_tied(source, model, shards, headers):
    """Raise InputError for weights that config.json ties, but the files have twice, and unlike.

    transformers would compute with both, vLLM with one of them.
    """
    from safetensors import safe_open

    def read(name):
        for shard, header in zip(shards, headers, strict=True):
            for each in header:
                if f".{name}".endswith(f".{each}"):
                    with safe_open(shard, "pt") as file:
                        return file.get_tensor(each)
        return None

    for tied, origin in sorted(model.get_expanded_tied_weights_keys(all_submodels=True).items()):
        one, other = read(tied), read(origin)
        if one is not None and other is not None and not one.to(other.dtype).equal(other):
            raise InputError(
                f"{source}: {tied} is not {origin}, although config.json ties them (tie_word_embeddings); "
                "set that to false, or take another revision"
            )


def _header(path):
    """Return {name: (shape, torch.dtype)} of a safetensors file."""
    from safetensors.torch import _TYPES

    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    return {name: (tensor["shape"], _TYPES[tensor["dtype"]]) for name, tensor in header.items()}


def _check_values(source, path):
    """Raise InputError for the first tensor with a NaN or infinite number, and for a file of zeros."""
    from safetensors import safe_open

    zeros = []  # whether each matrix is 0 throughout
    with safe_open(path, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118
            tensor = tensors.get_tensor(name)
            if not tensor.is_floating_point():
                continue
            tensor = tensor.float() if tensor.element_size() == 1 else tensor
            if not tensor.isfinite().all():
                raise InputError(
                    f"{source}: {path.name}: {name} has weights that are NaN or infinite; take another "
                    "revision"
                )
            if tensor.ndim > 1:
                zeros.append(not tensor.any())
    if zeros and all(zeros):
        raise InputError(
            f"{source}: {path.name}: all its weights are 0, as in a file that was not written to its end; "
            "fetch it again, or take another revision"
        )


def _some(names):
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more

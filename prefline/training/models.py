"""Model directories: what a machine needs to load them for a training, and how a trained one is written."""

import importlib.util
import shutil
from pathlib import Path

from prefline.errors import InputError
from prefline.provenance import manifest


def check_attention(name, dtype):
    """Raise InputError if this machine lacks what the attention called `name` needs to train in `dtype`."""
    import torch

    gpu = torch.cuda.is_available()
    lacking = {
        "flash_attention_2": {
            "the package flash-attn": importlib.util.find_spec("flash_attn") is None,
            "dtype bfloat16": dtype != "bfloat16",
            "a GPU": not gpu,
            "a GPU of compute capability 8.0 (Ampere) or later": gpu
            and torch.cuda.get_device_capability() < (8, 0),
        },
        "flex_attention": {"a GPU": not gpu},
    }
    for need, lacks in lacking.get(name, {}).items():
        if lacks:
            raise InputError(f"attn_implementation is {name}, which needs {need}; take sdpa, or get it")


def vocabulary(directory):
    """The number of tokens (int) of the model of a directory, by its config."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(directory, trust_remote_code=False).get_text_config().vocab_size


def disable_dropout(model):
    """Switch off the model's own dropout, not that of adapters: its noise is no part of a log-ratio.

    It is in layers, in numbers that attentions keep (Llama), and in the config, where some look it up
    (Falcon); `save` writes the config's as they were.
    """
    import torch

    config = model.config.get_text_config()
    for name in _dropouts(vars(config)):
        setattr(config, name, 0.0)
    for path, module in model.named_modules():
        for name in _dropouts(vars(module)):
            setattr(module, name, 0.0)
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" not in path:
            module.p = 0.0


def _dropouts(numbers):
    """Names in a dict that are of dropouts' probabilities: attention_dropout, attn_pdrop, …"""
    return [name for name, value in numbers.items() if "drop" in name and isinstance(value, float)]


def save(model, start, dtype, directory, whole=None):
    """Write a trained model to `directory`: its weights, safetensors in `dtype`, and what belongs to them.

    Tokenizer, chat template and generation config are the files of `start`, the directory that it was trained
    from, untouched. whole: see sharding.gathered.
    """
    import torch
    from transformers import AutoConfig, GenerationConfig

    if whole is None:
        model = model.to(getattr(torch, dtype))
    else:
        whole = {name: tensor.to(getattr(torch, dtype)) for name, tensor in whole.items()}
        model.config.dtype = dtype
    # Trainers align these with the tokenizer, whose one end token may be fewer than the model's.
    initial = AutoConfig.from_pretrained(start, trust_remote_code=False)
    model.config.bos_token_id, model.config.eos_token_id = initial.bos_token_id, initial.eos_token_id
    # transformers' trainers switch it off, and whoever loads the model would generate without a cache.
    model.config.use_cache = getattr(initial, "use_cache", True)
    dropouts = vars(initial.get_text_config())
    for name in _dropouts(dropouts):
        setattr(model.config.get_text_config(), name, dropouts[name])
    if model.can_generate():
        model.config.pad_token_id = initial.pad_token_id
        model.generation_config = GenerationConfig.from_model_config(model.config)
    model.save_pretrained(directory, state_dict=whole)
    for pattern in manifest.COMPANIONS:
        for companion in Path(start).glob(pattern):
            copy = directory / companion.relative_to(start)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(companion, copy)

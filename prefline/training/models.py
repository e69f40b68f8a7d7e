"""Model directories: what a machine needs to load them for a training, and how a trained one is written."""

import copy
import importlib.util
import shutil
from pathlib import Path

from prefline import files
from prefline.errors import InputError
from prefline.provenance import manifest
from prefline.text import chat

# Keys of a config that trainers set for their loss, of models with experts.
ROUTER = ("output_router_logits", "router_aux_loss_coef")
RESCALING = "rescale_every"  # the key of a config by which eval mode divides weights in place (RWKV)


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
    """Return the number of tokens (int) of the model of a directory, by its config."""
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


def keep_weights(model):
    """Make evaluations leave a model's weights as they are; `save` restores the config's key."""
    if hasattr(model.config, RESCALING):
        setattr(model.config, RESCALING, 0)


def _dropouts(numbers):
    """Return the names in a dict of dropout probabilities: attention_dropout, attn_pdrop, …"""
    return [name for name, value in numbers.items() if "drop" in name and isinstance(value, float)]


def dtypes(model, dtype):
    """Return {name: torch.dtype} of a PreTrainedModel's tensors, as transformers loads them in `dtype` (str).

    Some stay float32, such as a bias that chooses between experts, which bfloat16 would make useless.
    """
    import torch
    from transformers.core_model_loading import build_glob_alternation

    dtype = getattr(torch, dtype)
    with torch.device("meta"):
        # The attention does not matter, and this one needs no packages.
        empty = type(model)._from_config(
            copy.deepcopy(model.config), dtype=dtype, attn_implementation="eager"
        )
    found = {name: tensor.dtype for name, tensor in empty.state_dict().items()}
    plan = model._get_dtype_plan(dtype)
    if plan:
        alternation, names, _ = build_glob_alternation(list(plan))
        matches = {name: alternation.search(name) for name in found}
        found |= {name: plan[names[match.lastgroup]] for name, match in matches.items() if match}
    return found


def save(model, start, dtype, directory, whole=None):
    """Write a trained model to `directory`: its weights, safetensors in `dtype`, with config and tokenizer.

    Tokenizer, chat template and generation config are the files of `start`, the directory of the start
    model. The generation config also gets the chat template's end of turn, which the model has learnt; a
    base model's only ends documents. A classifier's tokenizer gets the padding token of its config. The
    model in memory is rounded, too, unless its weights are sharded. whole: see sharding.gathered.
    """
    import torch
    from transformers import AutoConfig, GenerationConfig

    saved_as = dtypes(model, dtype)
    if whole is None:
        for name, tensor in model.state_dict(keep_vars=True).items():
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(saved_as[name])
    else:
        whole = {
            name: tensor.to(saved_as[name]) if tensor.is_floating_point() else tensor
            for name, tensor in whole.items()
        }
    # Trainers align these with the tokenizer, whose one end token may be fewer than the model's.
    initial = AutoConfig.from_pretrained(start, trust_remote_code=False)
    for name in ("bos_token_id", "eos_token_id", *["pad_token_id"] * model.can_generate()):
        if hasattr(initial, name):  # some have it in the text's config only
            setattr(model.config, name, getattr(initial, name))
    # transformers' trainers switch it off; then users of the model would generate without a cache.
    model.config.use_cache = getattr(initial, "use_cache", True)
    ours, theirs = model.config.get_text_config(), initial.get_text_config()
    for name in (*_dropouts(vars(theirs)), *ROUTER, RESCALING):
        if hasattr(theirs, name):
            setattr(ours, name, getattr(theirs, name))
    if model.can_generate():
        model.generation_config = GenerationConfig.from_model_config(model.config)
    model.save_pretrained(directory, state_dict=whole)
    # The library takes it from the weights in memory, which may be float32 still.
    model.config.dtype = getattr(torch, dtype)
    model.config.save_pretrained(directory)
    copy_companions(start, directory)
    if model.can_generate():
        _end_with_turns(directory)
    else:
        _name_padding(directory, model.config.get_text_config().pad_token_id)


def copy_companions(start, directory):
    """Copy what belongs to the model in `start`, weights and config aside, to `directory` (Path)."""
    for pattern in manifest.COMPANIONS:
        for companion in Path(start).glob(pattern):
            copy = directory / companion.relative_to(start)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(companion, copy)


def _end_with_turns(directory):
    """Make the chat template's end of turn an end token of the model in `directory` (Path)."""
    if not (directory / "tokenizer_config.json").is_file():
        return
    path, end = directory / "generation_config.json", chat.end_of_turn(chat.load_tokenizer(directory))
    config = files.read_json(path) if path.is_file() else {}
    ends = config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [token for token in [ends] if token is not None]
    if end is not None and end not in ends:
        files.write_json(path, config | {"eos_token_id": [*ends, end]})


def _name_padding(directory, pad_token_id):
    """Have the tokenizer of a classifier's directory pad with the token that its config names.

    A classifier reads its score from the last token that is no padding by its config.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    if pad_token_id is None or tokenizer.pad_token_id == pad_token_id:
        return
    named = {"pad_token": tokenizer.convert_ids_to_tokens(pad_token_id)}
    settings, texts = directory / "tokenizer_config.json", directory / "special_tokens_map.json"
    files.write_json(settings, (files.read_json(settings) if settings.is_file() else {}) | named)
    if texts.is_file():
        files.write_json(texts, files.read_json(texts) | named)

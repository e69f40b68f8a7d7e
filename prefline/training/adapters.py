"""Low-rank adapters (PEFT's LoRA) on weights that stay as they are, in full precision or in four bits.

A training with adapters writes the adapters alone, to results/adapters/NAME, with rows of its held-out data;
scripts/models/merge_adapter.py makes a model of them. Both load the frozen weights here, so that what is
measured at the merge is what was trained.

Four bits are bitsandbytes' NF4 (QLoRA, arXiv 2305.14314): 16 values for blocks of 64 weights, and the blocks'
scales quantized in turn. A matrix product makes its weights `dtype` again and computes in that. Embeddings,
norms and heads are not quantized.
"""

import os
from pathlib import Path

from prefline import files
from prefline.errors import InputError

RECORD = "training.json"
HELD_OUT = 64  # sequences that a merge is measured on


def import_packages(settings):
    """Import what adapters need and optional_packages hides, before peft asks whether it is installed.

    settings: dict, the config key `peft`, or None.
    """
    if settings and settings.get("quantization"):
        import bitsandbytes  # noqa: F401


def load_frozen(path, cls, dtype, quantization, **overrides):
    """The weights of the directory `path` in a `cls` (AutoModelForCausalLM, say), ready for adapters.

    dtype: str, of what is not quantized, and of the products with what is; quantization: None or "nf4", of
    all linear layers but the head. Quantized weights are on the device at once, others on the CPU. overrides:
    settings of the configuration, such as num_labels. Raises InputError where there is nothing to quantize.
    """
    import torch

    dtype = getattr(torch, dtype)
    if quantization is not None:
        if not any(Path(path).glob("*.safetensors")):
            raise InputError(f"{path} has no weights to quantize; leave out peft.quantization")
        from transformers import BitsAndBytesConfig

        overrides["device_map"] = {"": device()}
        overrides["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = cls.from_pretrained(path, dtype=dtype, use_safetensors=True, trust_remote_code=False, **overrides)
    for _, layer in quantized_layers(model):
        # Its kernel for inference on CPUs rounds to bfloat16, and keeps the weights in an order through which
        # no gradient comes back: once a model was evaluated, it could not be trained.
        layer.support_avx512bf16_for_cpu = False
    return model


def quantized_layers(model):
    """(name, layer) of each linear layer of `model` whose weights have four bits."""
    return [(name, module) for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"]


def put_on(model, settings):
    """`model` with fresh adapters as the dict `settings` says (config key `peft`)."""
    import peft

    of_lora = {key: value for key, value in settings.items() if key != "quantization"}
    task = "CAUSAL_LM" if model.can_generate() else "SEQ_CLS"
    return peft.get_peft_model(model, peft.LoraConfig(task_type=task, **of_lora))


def leave_inputs(model):
    """Have adapters take their inputs as they come, in a model that only computes under autocast.

    PEFT would make them float32, and autocast bfloat16 again: the same numbers, for an eighth of a training's
    time and memory (docs/performance.md).
    """
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False


def unrounded(model):
    """Make the adapters of `model` float32 again, which TRL's trainers round to bfloat16 beside four bits.

    In bfloat16, steps below 1/256 of a weight are lost.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def device():
    """Where this process computes (str)."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def save(model, directory, dtype, settings, sequences, whole=None):
    """Write the adapters of `model` to `directory`, which is there, with what a merge has to know.

    dtype, settings: as in load_frozen and put_on; sequences: list of (prompt ids, completion ids) that were
    held out from training, of which the first are kept; whole: see sharding.gathered.
    """
    model.save_pretrained(directory, state_dict=whole)
    (directory / "README.md").unlink(missing_ok=True)
    rows = [[list(map(int, ids)) for ids in sequence] for sequence in sequences[:HELD_OUT]]
    files.write_json(
        directory / RECORD,
        {
            "dtype": dtype,
            "peft": settings,
            "num_labels": None if model.can_generate() else model.config.num_labels,
            "pad_token_id": model.config.pad_token_id,
            "prompt_ids": [prompt for prompt, _ in rows],
            "completion_ids": [completion for _, completion in rows],
        },
    )

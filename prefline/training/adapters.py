"""Train low-rank adapters (PEFT's LoRA) on frozen weights, in full precision or in four bits.

A training with adapters writes only the adapters, to results/adapters/NAME, with rows of its held-out data.
scripts/models/merge_adapter.py makes a model from them. Both load the frozen weights here, so that the merge
measures the model that was trained.

Four bits are bitsandbytes' NF4 (QLoRA, arXiv 2305.14314): 16 values for blocks of 64 weights, and the
blocks' scales quantized, too. A matrix product converts its weights to `dtype` and computes in it.
Embeddings, norms and heads are not quantized.
"""

import os
from pathlib import Path

from prefline import files
from prefline.errors import InputError
from prefline.training import precision, whole_weights

RECORD = "training.json"
HELD_OUT = 64  # sequences on which a merge is measured


def import_packages(settings):
    """Import adapters' packages that optional_packages hides, before peft checks whether they are installed.

    settings: dict, the config key `peft`, or None.
    """
    if settings and settings.get("quantization"):
        import bitsandbytes  # noqa: F401


def load_frozen(path, cls, dtype, quantization, **overrides):
    """Return the weights of the directory `path` in a `cls` (AutoModelForCausalLM, say), ready for adapters.

    dtype: str, of weights that are not quantized, and of products; quantization: None or "nf4", of all
    linear layers but the head. Quantized weights are loaded to the device, others to the CPU. With
    bfloat16, everything but products is float32 (precision.py). overrides: settings of the configuration,
    such as num_labels. Raises InputError if there is nothing to quantize, and for weights that do not fit
    the architecture.
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
    mixed = quantization is None and dtype == torch.bfloat16
    model, loading = cls.from_pretrained(
        path,
        dtype="auto" if mixed else dtype,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **overrides,
    )
    whole_weights.refuse_missing(path, cls, loading)
    if mixed:
        precision.mix(model)
    for _, layer in quantized_layers(model):
        # Its kernel for inference on CPUs rounds to bfloat16 and reorders the weights so that no gradient
        # passes: after an evaluation, the model could not be trained.
        layer.support_avx512bf16_for_cpu = False
    return model


def quantized_layers(model):
    """Return (name, layer) of each linear layer of `model` whose weights have four bits."""
    return [
        (name, module)
        for name, module in model.named_modules()
        # PEFT's layer around it has the same name.
        if type(module).__name__ == "Linear4bit" and not hasattr(module, "base_layer")
    ]


def dequantize(model, dtype):
    """Replace a model's quantized layers, one by one, by linear layers on the CPU that have `dtype` (str)."""
    import torch

    for name, layer in quantized_layers(model):
        from bitsandbytes.functional import dequantize_4bit

        with torch.device("meta"):
            linear = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        whole = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        linear.weight = torch.nn.Parameter(whole.to("cpu", getattr(torch, dtype)), requires_grad=False)
        if layer.bias is not None:
            linear.bias = torch.nn.Parameter(layer.bias.data.cpu(), requires_grad=False)
        owner, _, place = name.rpartition(".")
        setattr(model.get_submodule(owner), place, linear)
        layer.weight = None  # nothing else frees it before the next
    base = model.get_base_model()
    if getattr(base, "hf_quantizer", None) is not None:
        base.hf_quantizer.remove_quantization_config(base)


def put_on(model, settings):
    """Return `model` with new adapters by the dict `settings` (config key `peft`).

    Raises InputError for adapters that cannot train, or cannot be merged into the weights afterwards.
    """
    import peft

    of_lora = {key: value for key, value in settings.items() if key != "quantization"}
    task = "CAUSAL_LM" if model.can_generate() else "SEQ_CLS"
    of_lora = {key: value for key, value in of_lora.items() if key != "merge_into"}
    try:
        adapted = peft.get_peft_model(model, peft.LoraConfig(task_type=task, **of_lora))
    except ValueError as error:
        # Experts are one tensor of three dimensions, through which PEFT cannot drop inputs.
        if "ParamWrapper" in str(error) and of_lora["lora_dropout"]:
            raise InputError(
                f"peft.lora_dropout is {of_lora['lora_dropout']}, but adapters of experts have none "
                f"({type(model).__name__}); set it to 0, or name target_modules without experts, such as "
                "[q_proj, k_proj, v_proj, o_proj]"
            ) from None
        raise InputError(f"peft.target_modules {of_lora['target_modules']}: {error}") from None
    _check_shared(adapted)
    _check_forward(adapted, of_lora["target_modules"])
    return adapted


def weight_of(layer):
    """Return the parameter to which an adapted layer adds: of a linear layer, or of experts."""
    base = layer.get_base_layer()
    return getattr(base, getattr(layer, "parameter_name", "weight"))


def adapted_layers(model):
    """Return (name, layer) of each layer of a PeftModel that has adapters."""
    return [(name, layer) for name, layer in model.named_modules() if hasattr(layer, "get_delta_weight")]


def _check_shared(model):
    """Raise InputError if the model also uses an adapted weight where its adapters do not count.

    A merge would change both places, and give another model than the trained one.
    """
    places = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    for name, layer in adapted_layers(model):
        others = places[id(weight_of(layer))]
        if len(others) > 1:
            raise InputError(
                f"peft.target_modules includes {name.removeprefix('base_model.model.')}, whose weights the "
                f"model uses in {len(others)} places (such as tied embeddings): adapters would change one "
                "of them, and a merge all; leave it out of target_modules"
            )


def _check_forward(model, target_modules):
    """Raise InputError if a model cannot compute with its adapters: some routers return several tensors."""
    import torch

    ids = torch.arange(4, device=model.device)[None] % model.config.get_text_config().vocab_size
    training = model.training
    try:
        with torch.no_grad(), precision.computing(model):
            model.eval()(input_ids=ids, use_cache=False)
    except (AttributeError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(
            f"peft.target_modules {target_modules}: {type(model.get_base_model()).__name__} cannot compute "
            f"with these adapters ({type(error).__name__}: {error}); name the modules of its attention, "
            "such as [q_proj, k_proj, v_proj, o_proj]"
        ) from None
    model.train(training)


def leave_inputs(model):
    """Make adapters take their inputs unchanged, in a model that only computes under autocast.

    PEFT would convert them to float32, and autocast back to bfloat16: the same numbers, at the cost of an
    eighth of a training's time and memory (docs/performance.md).
    """
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False


def unrounded(model):
    """Make the adapters of `model` float32 again, which TRL's trainers round to bfloat16 for QLoRA.

    In bfloat16, steps below 1/256 of a weight would be lost.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def device():
    """Return the device (str) of this process."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def save(model, directory, how, sequences, trained, whole=None):
    """Write the adapters of `model` to the existing `directory`, with the data that a merge needs.

    how: dict, the `dtype`, `peft` and `attn_implementation` of the training; sequences: list of held-out
    (prompt ids, completion ids), the first of which are written; trained: the model's values of the first
    of them (fidelity.values); whole: see sharding.gathered.
    """
    model.save_pretrained(directory, state_dict=whole)
    (directory / "README.md").unlink(missing_ok=True)
    rows = [[list(map(int, ids)) for ids in sequence] for sequence in sequences[:HELD_OUT]]
    files.write_json(
        directory / RECORD,
        how
        | {
            "num_labels": None if model.can_generate() else model.config.num_labels,
            "pad_token_id": model.config.pad_token_id,
            "prompt_ids": [prompt for prompt, _ in rows],
            "completion_ids": [completion for _, completion in rows],
            "trained": [values.tolist() for values in trained],
        },
    )

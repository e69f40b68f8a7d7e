"""The weights that a training starts from, and those of the model that its policy is held to.

With dtype bfloat16 all parameters are trained in float32, and computed with in bfloat16. With adapters, the
frozen weights are held in bfloat16, or quantized, and the adapters in float32; the rule merge_adapter makes a
model of both. Torch and transformers are imported inside functions, so that `--help` is instant.
"""

from pathlib import Path

from prefline import seeds
from prefline.architectures import exact
from prefline.training import adapters, models, precision, probe, process, sharding


def load(settings, cls, **overrides):
    """Return the model to train: a `cls` (AutoModelForCausalLM, say) of settings.model, adapters added.

    Parameters are float32 (frozen ones beside adapters: settings.dtype, or quantized). A directory without
    weights gives fresh ones, drawn from settings.seed. overrides: settings of the configuration, such as
    num_labels.
    """
    process.quiet()
    import torch
    from transformers import AutoConfig, GenerationConfig, set_seed

    set_seed(seeds.for_libraries(settings.seed, "initial weights"))
    dtype = "float32" if settings.peft is None else settings.dtype
    quantization = (settings.peft or {}).get("quantization")
    sharding.check(quantization, settings.optim)
    models.check_attention(settings.attn_implementation, settings.dtype)
    config = AutoConfig.from_pretrained(settings.model, trust_remote_code=False, **overrides)
    overrides["attn_implementation"] = exact.attention(config, settings.attn_implementation)
    if quantization or any(Path(settings.model).glob("*.safetensors")):
        model = adapters.load_frozen(settings.model, cls, dtype, quantization, **overrides)
    else:
        model = cls.from_config(
            config,
            attn_implementation=overrides["attn_implementation"],
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
        )
    if model.can_generate():
        # The library reads many a published generation config that it then refuses to save in checkpoints.
        model.generation_config = GenerationConfig.from_model_config(model.config)
        # Some configs say no, of models that a trainer of transformers has written.
        model.generation_config.use_cache = True
    models.keep_weights(model)
    probe.hold_still(model)
    exact.limit_lengths(model)
    if settings.peft is None:
        return model
    set_seed(seeds.for_libraries(settings.seed, "initial adapters"))
    model = adapters.put_on(model, settings.peft)
    if settings.gradient_checkpointing:
        model.enable_input_require_grads()
    return model


def load_reference(directory, dtype, attn_implementation):
    """Return the frozen model (AutoModelForCausalLM) of a directory, for use during training."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    attention = exact.attention(config, attn_implementation)
    return precision.load(AutoModelForCausalLM, directory, dtype, attn_implementation=attention)

"""Compute frozen models as in training: products in bfloat16, everything else in float32 (autocast).

A training has float32 weights and rounds them for each product. A reference all in bfloat16 would also
round results between products, which gives margins of a tenth of a nat before any training. Here only the
weights of linear layers are in bfloat16, to which autocast would round them anyway. Embeddings, norms,
routers and experts are as in the file. So policy and reference are the same computation.
"""

import contextlib

MIXED = "computes_in_bfloat16"  # the attribute of such a model


def load(cls, directory, dtype, **overrides):
    """Load the model (a `cls`, such as AutoModelForCausalLM) of a directory, to compute in `dtype` (str)."""
    import torch

    mixed = dtype == "bfloat16"
    model = cls.from_pretrained(
        directory,
        dtype="auto" if mixed else getattr(torch, dtype),
        use_safetensors=True,
        trust_remote_code=False,
        **overrides,
    )
    if mixed:
        mix(model)
    return model.requires_grad_(False).eval()


def mix(model):
    """Store the weights of a model's linear layers in bfloat16, and everything else in float32.

    Experts are not linear layers; a training does not round theirs either.
    """
    import torch
    from transformers import PreTrainedModel
    from transformers.pytorch_utils import Conv1D

    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    owners = {"": model}  # {name of a module: the innermost model around it}, which draws its buffers
    for path, module in model.named_modules():
        outer = owners[path.rpartition(".")[0]]
        owners[path] = module if isinstance(module, PreTrainedModel) else outer
        linear = isinstance(module, (torch.nn.Linear, Conv1D))
        for name, weight in module.named_parameters(recurse=False):
            if weight.is_floating_point():
                product = linear and name == "weight" and id(weight) not in embeddings
                weight.data = weight.data.to(torch.bfloat16 if product else torch.float32)
        _widen_buffers(owners[path], module)
    setattr(model, MIXED, True)


def _widen_buffers(model, module):
    """Make a module's buffers float32; buffers that are in no file are computed again, unrounded."""
    import torch

    narrow = [
        name
        for name, buffer in module.named_buffers(recurse=False)
        if buffer.is_floating_point() and buffer.dtype != torch.float32
    ]
    for name in narrow:
        module._buffers[name] = module._buffers[name].float()
    if module._non_persistent_buffers_set.intersection(narrow):
        for tensor in (*module.parameters(), *module.buffers()):
            tensor._is_hf_initialized = True
        for name in module._non_persistent_buffers_set:
            module._buffers[name]._is_hf_initialized = False
        model._init_weights(module)


def computing(model):
    """Return a context in which a model of `load` computes as in training; others are unchanged."""
    import torch

    if getattr(model, MIXED, False):
        return torch.autocast(model.device.type, torch.bfloat16)
    return contextlib.nullcontext()

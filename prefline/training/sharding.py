"""Shard weights over several processes: PyTorch's FSDP2 and DeepSpeed's ZeRO-3.

prefline/machine/launch.py sets in the environment which of them a training uses, and accelerate does it. This
module corrects three things in accelerate. It would round a model's outputs to bfloat16 (sums of
log-probabilities near -300 would have steps of 2). It silently ignores FSDP without a GPU. And it leaves
gathering the weights to the code that saves a model.
"""

import contextlib
import importlib
import importlib.util
import os

from prefline.errors import InputError


def name():
    """Return fsdp2, zero3, or None where every process holds the whole model."""
    for switch, found in (("ACCELERATE_USE_FSDP", "fsdp2"), ("ACCELERATE_USE_DEEPSPEED", "zero3")):
        if os.environ.get(switch) == "true":
            return found
    return None


def written():
    """Return the form of this training's checkpoints (dict of JSON values), for their marker."""
    return {"parallel": name(), "devices": int(os.environ.get("WORLD_SIZE", "1"))}


def check_written(checkpoint, found):
    """Raise InputError if the weights of a checkpoint are sharded in another way than this training's.

    checkpoint: Path of its folder; found: what `written` gave when it was written. Of whole weights and of
    FSDP2's each number of devices takes its part; ZeRO-3's parts are those of the devices that wrote them.
    """
    if found["parallel"] == name() and (name() != "zero3" or found == written()):
        return
    raise InputError(
        f"{checkpoint} was written {_in_words(**found)}, and now training is {_in_words(**written())}, which "
        "cannot read it; set the resource `parallel` and the number of devices back, or delete "
        f"{checkpoint.parent} to begin again"
    )


def _in_words(parallel, devices):
    return "on one device" if devices == 1 else f"by {parallel or 'ddp'} on {devices} devices"


def check(quantization, optim):
    """Raise InputError if what the environment asks for cannot be had here, or not with these settings.

    quantization, optim: str, the training's config; None for whole weights.
    """
    if name() == "zero3" and importlib.util.find_spec("deepspeed") is None:
        raise InputError(
            "the resource `parallel` is zero3, which needs DeepSpeed: pip install deepspeed, or take fsdp2, "
            "which shards the same"
        )
    if name() is not None and quantization is not None:
        raise InputError(
            f"the resource `parallel` is {name()}, but four-bit weights cannot be sharded; take ddp: they "
            "are small enough for each device to hold them all"
        )
    if name() is not None and ("8bit" in optim or "paged" in optim):
        raise InputError(
            f"the resource `parallel` is {name()}, which bitsandbytes' {optim} does not go with; take optim "
            "adamw_torch_fused, whose moments are sharded, or ddp"
        )


def refuse(method, names):
    """Raise InputError if the environment asks for one of `names`, which `method` does not go with."""
    if name() in names:
        others = " or ".join(other for other in ("ddp", "fsdp2", "zero3") if other not in names)
        raise InputError(
            f"the resource `parallel` is {name()}, which {method} does not go with; take {others}"
        )


def prepare(model_trainer):
    """Make a transformers.Trainer shard its model's weights; call it before it trains."""
    if name() != "fsdp2":
        return
    import torch
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy

    state = model_trainer.accelerator.state
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        model_trainer.is_fsdp_enabled = True
    if model_trainer.args.bf16:
        state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32
        )


@contextlib.contextmanager
def as_it_is(model_trainer):
    """Make libraries see that ZeRO-3 has not sharded the model yet, for measurements before training."""
    if name() != "zero3" or hasattr(next(model_trainer.model.parameters()), "ds_id"):
        yield
        return
    from transformers.integrations import deepspeed

    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed.set_hf_deepspeed_config(model_trainer.accelerator.state.deepspeed_plugin.dschf)


@contextlib.contextmanager
def whole(*models):
    """Make every process hold all weights of models that FSDP2 has sharded, in the dtype it computes in.

    Else each forward pass waits for all processes, of which one may be through with its completions earlier.
    All processes have to enter together.
    """
    parts = []
    if name() == "fsdp2":
        from torch.distributed.fsdp import FSDPModule

        parts = [part for model in models for part in model.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)  # as profiles/accelerate/fsdp2.yaml has it
            part.reshard()


def leave():
    """Have libraries load models whole from now on, in this process alone."""
    if name() == "zero3":
        from transformers.integrations import deepspeed

        deepspeed.unset_hf_deepspeed_config()


def gathered(model):
    """Return the state dict of `model`, whole and on the CPU; None where it is whole in every process anyway.

    All processes have to call it together. A weight with two names, such as a head that is the embeddings,
    is there under the first.
    """
    if name() is None:
        return None
    seen, whole = set(), {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            whole[key] = _whole(tensor)
    return whole


def _whole(tensor):
    """Return a copy on the CPU of a weight that may be sharded."""
    if hasattr(tensor, "full_tensor"):
        return tensor.detach().full_tensor().cpu()
    if hasattr(tensor, "ds_id"):
        # No environment of the project has DeepSpeed: who wants it installs it.
        with importlib.import_module("deepspeed").zero.GatheredParameters([tensor]):
            return tensor.detach().cpu().clone()
    return tensor.detach().cpu()

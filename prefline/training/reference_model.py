"""The policy that a training's policy is held to, as a model in memory."""


def load(args):
    """The frozen model of the directory args.reference, in args.dtype."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        args.reference, dtype=getattr(torch, args.dtype), use_safetensors=True, trust_remote_code=False
    )
    return model.requires_grad_(False).eval()

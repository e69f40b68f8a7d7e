"""MFU: the part of a device's peak arithmetic that a training's model FLOPs come to.

The formula is that of PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B) without the attention's
products, so it is a little too low. A token costs 2 FLOPs per weight forwards, 2 backwards to the
activations, and 2 for each trained weight: 6N in full training, slightly more than 4N with adapters.
Recomputed activations (gradient checkpointing) are not counted. Tokens are those of `train_tokens`: a prompt
that two completions share counts for both, though it is computed once.
"""

# Dense bfloat16 peaks (float32 accumulation) in TFLOP/s, from NVIDIA's data sheets; the first match counts.
PEAKS = {
    "B200": 2250.0,
    "H200 NVL": 835.5,
    "H200": 989.4,
    "GH200": 989.4,
    "H100 PCIe": 756.5,
    "H100 NVL": 835.5,
    "H100": 989.4,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}


def peak(device):
    """Return peak (float, FLOP/s) of a device by its name (str), None where it is not known."""
    words = f" {device.replace('-', ' ')} "
    found = (tflops for name, tflops in PEAKS.items() if f" {name} " in words)
    return next((tflops * 1e12 for tflops in found), None)


def flops_per_token(model):
    """Return FLOPs (int) of a training step per token; the embedding's table is looked up, not multiplied."""
    if hasattr(model, "get_nb_trainable_parameters"):
        trainable, total = model.get_nb_trainable_parameters()
    else:
        trainable = total = model.num_parameters()
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    if not tied:
        embedding = model.get_input_embeddings().weight
        total -= embedding.numel()
        trainable -= embedding.numel() if embedding.requires_grad else 0
    return 4 * total + 2 * trainable


def mfu(tokens_per_second, per_token, devices, dtype):
    """Return the MFU (float), or None on a device of unknown peak or where training is not in bfloat16.

    tokens_per_second: float, over all `devices` (int); per_token: as flops_per_token gives it.
    """
    import torch

    if not torch.cuda.is_available() or dtype != "bfloat16":
        return None
    most = peak(torch.cuda.get_device_name())
    return None if most is None else round(tokens_per_second * per_token / (most * devices), 4)

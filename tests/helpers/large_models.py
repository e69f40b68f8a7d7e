"""Directories of models with billions of parameters: the files of their weights end after the header."""

import json

NAMES = ["hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"]
NAMES += ["intermediate_size", "vocab_size"]
LLAMA_8B = (4096, 32, 32, 8, 14336, 128256)
QWEN_72B = (8192, 80, 64, 8, 29568, 152064)
QWEN_32B = (5120, 64, 40, 8, 27648, 152064)
QWEN_15B = (1536, 28, 12, 2, 8960, 151936)
QWEN_3B = (2048, 36, 16, 2, 11008, 151936)
TINY = (576, 30, 9, 3, 1536, 49152)
SMALL = (896, 24, 14, 2, 4864, 151936)


def write(directory, shape):
    """Write the config and the header of weights in bfloat16 to a new directory; shape: values of NAMES."""
    directory.mkdir(parents=True)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 131072}
    (directory / "config.json").write_text(json.dumps(config | dict(zip(NAMES, shape, strict=True))))
    (directory / "tokenizer.json").write_text("{}")
    hidden, layers, heads, kv_heads, intermediate, vocabulary = shape
    kv = kv_heads * hidden // heads
    matrices = {"q_proj": (hidden, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden)}
    matrices |= {"o_proj": (hidden, hidden), "gate_proj": (intermediate, hidden)}
    matrices |= {"up_proj": (intermediate, hidden), "down_proj": (hidden, intermediate)}
    shapes = {name: (vocabulary, hidden) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": matrix for name, matrix in matrices.items()}
    tensors = {name: {"dtype": "BF16", "shape": of, "data_offsets": [0, 0]} for name, of in shapes.items()}
    header = json.dumps(tensors).encode()
    (directory / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)

"""Weights of a model directory that no one has written for its config."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_model import make_model

from prefline import files
from prefline.errors import InputError
from prefline.training import whole_weights


def rewrite(directory, change=lambda weights: weights, **config):
    """Change a model's weights, {name: tensor}, and its config.json."""
    path = directory / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})
    settings = files.read_json(directory / "config.json")
    files.write_json(directory / "config.json", settings | config)


def test_tied_weights_that_differ_are_refused(tmp_path):
    """transformers would train both, and vLLM would sample with one."""
    source = make_model(tmp_path / "source", num_hidden_layers=1, tie_word_embeddings=True)
    embedding = load_file(source / "model.safetensors")["model.embed_tokens.weight"]
    rewrite(source, lambda weights: weights | {"lm_head.weight": embedding.clone()})
    whole_weights.check("source", source)
    rewrite(source, lambda weights: weights | {"lm_head.weight": embedding + 1})
    with pytest.raises(InputError, match=r"lm_head.weight is not model.embed_tokens.weight, although"):
        whole_weights.check("source", source)
    rewrite(source, tie_word_embeddings=False)
    whole_weights.check("source", source)


def test_a_tensor_in_two_files_is_refused(tmp_path):
    source = make_model(tmp_path / "source", num_hidden_layers=1)
    whole = source / "model.safetensors"
    for shard in ("model-1.safetensors", "model-2.safetensors"):
        shutil.copyfile(whole, source / shard)
    whole.unlink()
    index = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    files.write_json(source / "model.safetensors.index.json", {"weight_map": index})
    with pytest.raises(InputError, match=r"weight is in model-1.safetensors and in model-2.safetensors"):
        whole_weights.check("source", source)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_numbers_without_their_scales_are_refused(tmp_path, dtype):
    source = make_model(tmp_path / "source", num_hidden_layers=1)
    rewrite(source, lambda weights: weights | {"lm_head.weight": weights["lm_head.weight"].to(dtype)})
    with pytest.raises(InputError, match=r"lm_head.weight is .*8.*, but config.json has no quantization_c"):
        whole_weights.check("source", source)


def test_names_are_compared_unless_weights_are_quantized(tmp_path):
    source = make_model(tmp_path / "source", num_hidden_layers=1)
    found = {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": False}
    rewrite(source, lambda weights: dict(list(weights.items())[::2]), quantization_config=found)
    with pytest.raises(InputError, match="it lacks"):
        whole_weights.check("source", source)


def test_masks_of_old_files_are_ignored(tmp_path):
    source = make_model(tmp_path / "source", architecture="GPT2LMHeadModel", n_layer=1, n_head=2, n_embd=32)
    masks = {"bias": torch.ones(1, 1, 128, 128), "masked_bias": torch.tensor(-1e4)}
    masks = {f"transformer.h.0.attn.{name}": mask for name, mask in masks.items()}
    rewrite(source, lambda weights: weights | masks)
    whole_weights.check("source", source)

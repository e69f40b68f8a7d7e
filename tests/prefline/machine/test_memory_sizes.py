"""Sizes of models as their directories have them, against the models themselves."""

import json

import peft
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, LlamaConfig

from prefline.architectures import miniature
from prefline.machine.memory import sizes

# Names, fused matrices, Conv1D, experts, ties and shared KV heads of many architectures.
KINDS = ["llama", "qwen2", "gemma2", "phi3", "gpt2", "gpt_neox", "mixtral", "qwen3_moe", "opt", "falcon"]


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_those_of_the_model(tmp_path, kind):
    model = miniature.build(miniature.of(CONFIG_MAPPING[kind]()))
    model.save_pretrained(tmp_path)
    found = sizes.of(tmp_path)
    assert found.exact
    assert found.parameters == sum(weight.numel() for weight in model.parameters())
    assert found.embedding >= model.get_input_embeddings().weight.numel()
    config = model.config.get_text_config()
    assert (found.hidden, found.layers) == (config.hidden_size, config.num_hidden_layers)
    assert found.vocabulary == config.vocab_size


@pytest.mark.parametrize("modules", ["all-linear", ["q_proj", "v_proj"]])
def test_adapters_have_the_parameters_that_peft_gives_them(tmp_path, modules):
    shape = dict(vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=3)
    config = LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=2)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    settings = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": modules}
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert sizes.of(tmp_path).adapters(settings) == trained


def test_sizes_from_a_config_alone_are_near(tmp_path):
    shape = dict(vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=3)
    config = LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=2)
    config.save_pretrained(tmp_path)
    found = sizes.of(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert not found.exact
    assert found.parameters == sum(weight.numel() for weight in model.parameters())


def test_models_that_are_not_there_have_no_size(tmp_path):
    assert sizes.of(tmp_path) is None
    assert sizes.known("hub:nobody/nothing@main") is None


def test_what_a_config_leaves_to_its_architecture_is_read_from_the_weights(tmp_path):
    model = miniature.build(miniature.of(CONFIG_MAPPING["gemma3_text"]()))
    model.save_pretrained(tmp_path)
    whole = sizes.of(tmp_path)
    text = {key: model.config.to_dict()[key] for key in ("hidden_size", "head_dim")}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    found = sizes.of(tmp_path)
    for field in ("parameters", "vocabulary", "layers", "heads", "kv_heads", "intermediate", "cached_width"):
        assert getattr(found, field) == getattr(whole, field), field


def test_layers_that_differ_count_as_the_largest(tmp_path):
    config = CONFIG_MAPPING["gemma3n_text"](intermediate_size=[64, 128], num_hidden_layers=2)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    assert sizes.of(tmp_path).intermediate == 128

"""Estimates of memory: against what the code really keeps, published figures, and each other."""

import contextlib
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from docs import fitting, resources
from prefline.machine.memory import fit, host, inference, sizes, training
from prefline.machine.memory.training import Training, of_token, parts
from prefline.training import adapters, packing, precision

LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}
SHAPE = {"vocab_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
LAYOUT = [[50, 75, 75], [40, 80, 80]]


def job(model, **changed):
    usual = {"method": "preference", "prompt_tokens": 1024, "completion_tokens": 1024, "rows": 4}
    return Training(**{"model": model, "global_batch_size": 16, **usual, **changed})


def kept_of_token(layers, dtype, peft):
    """The bytes that a forward pass of packed rows keeps for the backward pass, by token."""
    torch.manual_seed(0)
    shape = SHAPE | {"num_hidden_layers": layers, "hidden_size": 128, "intermediate_size": 384}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**shape), attn_implementation="sdpa")
    if peft is not None:
        if dtype == "bfloat16":
            precision.mix(model.to(torch.bfloat16))
        model.requires_grad_(False)
        model = adapters.put_on(model, peft)
        if dtype == "bfloat16":
            adapters.leave_inputs(model)
    base = model.get_base_model() if peft is not None else model
    base.set_attn_implementation(packing.NAME)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    found, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        # What does not grow with the tokens is a copy of weights.
        if (storage.data_ptr() not in weights and 400 in tensor.shape) or tensor.shape[-2:-1] == (130,):
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    computed = torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), computed:
        packing.hidden_states(base.base_model, torch.arange(400) % 64, LAYOUT)
    return sum(found.values()) / 400


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("peft", [None, LORA])
def test_activations_are_what_the_packed_rows_keep(tmp_path, dtype, peft):
    shape = SHAPE | {"hidden_size": 128, "intermediate_size": 384}
    AutoModelForCausalLM.from_config(LlamaConfig(**shape)).save_pretrained(tmp_path)
    found = of_token(job(sizes.of(tmp_path), dtype=dtype, peft=peft, gpu=False), fused=False)
    layer = kept_of_token(3, dtype, peft) - kept_of_token(2, dtype, peft)
    assert 0.9 * layer <= found <= 1.25 * layer


def test_a_full_training_of_8b_is_near_the_120_gb_that_an_h200_measured():
    """docs/performance.md, in units of 2**20 bytes × 1000; 4 pairs of 44 + 399 + 444 tokens."""
    lengths = {"prompt_tokens": 44, "completion_tokens": 422, "global_batch_size": 8}
    held = parts(job(sizes.typical(8), optim="adamw_8bit", **lengths))
    measured = 120e3 * 2**20
    assert 0.9 * measured <= fit.total(held) <= 1.25 * measured


def test_log_probabilities_of_8b_are_near_what_an_h200_measured():
    held = inference.scoring(sizes.typical(8), "bfloat16", 16_384, 2000)
    measured = 17.2e3 * 2**20
    assert 0.9 * measured <= fit.total(held) <= 1.25 * measured


@pytest.mark.parametrize(
    "method", ["preference", "sft", "pretrain", "reward_model", "kto", "grpo", "rloo", "ppo"]
)
def test_fewer_rows_and_less_of_everything_never_need_more(method):
    model = sizes.typical(1.5)
    beside = model if method in ("kto", "grpo", "rloo", "ppo") else None
    whole = job(model, method=method, rows=16, reference=beside)
    needed = fit.total(parts(whole))
    for change in (
        {"rows": 8},
        {"gradient_checkpointing": True},
        {"completion_tokens": 512},
        {"optim": "adamw_8bit"},
        {"peft": LORA},
        {"peft": LORA | {"quantization": "nf4"}},
    ):
        assert fit.total(parts(dataclasses.replace(whole, **change))) <= needed, change


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_vllm_beside_a_training_is_counted_while_it_samples(method):
    """It holds the policy again; while the policy trains on a GPU, it sleeps."""
    model = sizes.typical(1.5)
    own = job(model, method=method, rows=1, global_batch_size=64, reference=model)
    with_vllm = dataclasses.replace(own, sampler="vllm")
    on_cpu = parts(dataclasses.replace(with_vllm, gpu=False, rows=64))
    assert on_cpu["sampler"] > 2 * model.parameters and on_cpu["activations"] > 0
    percent = fit.sampler_percent(with_vllm, 80)
    left = fit.usable(80) - fit.total(training.beside_sampler(with_vllm))
    assert 0.7 * left < percent / 100 * 80 * fit.GIB < left


def test_a_training_that_does_not_fit_is_one_sentence_with_the_cheapest_change():
    large = job(sizes.typical(8))
    sentence = fit.complaint(large, 80, gpus=1)
    assert sentence.startswith("about 2") and "GB, the card has 80 (" in sentence
    assert "; set gradient_checkpointing: true and peft (LoRA), which needs about " in sentence
    assert "parallel: fsdp2" in fit.complaint(large, 80, gpus=8)
    small = job(sizes.typical(0.5))
    assert "; set per_device_train_batch_size: 2, which" in fit.complaint(small, 24)
    assert fit.complaint(small, 80) is None
    assert "take a smaller model" in fit.complaint(job(sizes.typical(70)), 24)


@pytest.mark.parametrize("card", [24, 48, 80])
@pytest.mark.parametrize("billions", [0.5, 3, 8])
def test_the_changed_training_really_fits(card, billions):
    for method in ("preference", "kto", "grpo"):
        model = sizes.typical(billions)
        found = fit.cheapest_change(job(model, method=method, rows=16, reference=model), card, gpus=8)
        if found is not None:
            assert fit.fits(parts(found[1]), card), found[0]


def test_the_largest_rows_fit_and_one_more_does_not():
    small = job(sizes.typical(1.5), gradient_checkpointing=True, global_batch_size=256)
    rows = fit.largest_rows(small, 48)
    assert 1 <= rows < 256
    fitting = [fit.fits(parts(dataclasses.replace(small, rows=each)), 48) for each in (rows, rows + 256)]
    assert fitting == [True, False]


def test_a_judge_of_72b_gets_as_many_gpus_as_hold_it():
    judge = sizes.typical(70)
    assert fit.tensor_parallel_size(judge, "bfloat16", 8192, 80) == 4
    assert fit.tensor_parallel_size(judge, "bfloat16", 8192, 24) is None
    assert fit.tensor_parallel_size(sizes.typical(8), "bfloat16", 4096, 24) == 1
    assert fit.tensor_parallel_size(sizes.typical(8), "bfloat16", 131_072, 24) == 2
    # 14 heads of queries and 2 of keys: 4 GPUs cannot share them.
    assert fit.tensor_parallel_size(sizes.typical(0.5), "bfloat16", 32_768, 1) is None


def test_the_machine_holds_a_model_for_each_process_that_shards_it():
    model = sizes.typical(8)
    one = host.training(job(model))
    eight = host.training(job(model, devices=8, parallel="fsdp2"))
    assert 4 * model.parameters < one < 45e9
    assert 8 * 4 * model.parameters < eight < 400e9
    assert host.training(job(model, peft=LORA | {"quantization": "nf4"})) < 12e9
    assert host.megabytes(host.fetching(model)) < 8000
    assert host.megabytes(1) == 100


def test_estimates_import_no_torch():
    code = (
        "import prefline.machine.memory.fit, prefline.machine.memory.host, sys; print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_the_table_of_the_docs_is_current():
    text = fitting.PAGE.read_text(encoding="utf-8")
    assert fitting.page(text) == text, "run: python -m docs.fitting"


def test_the_docs_list_every_resource_with_the_rules_defaults():
    text = resources.PAGE.read_text(encoding="utf-8")
    assert resources.page(text) == text, "run: python -m docs.resources"
    named = re.findall(r"^(?:rule|use rule \w+ as) (\w+)", read_rules(), re.M)
    assert sorted(resources.rules()) == sorted(named)
    assert resources.rules()["train_adapter"]["save_steps"] == 50


def read_rules():
    return "\n".join(path.read_text(encoding="utf-8") for path in Path("rules").glob("*.smk"))

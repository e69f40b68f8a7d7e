"""Adapters, on whole and on four-bit weights: they learn, go on where they were, and are merged honestly."""

import random
import weakref

import pytest
import small_model
import torch
from safetensors.torch import load_file
from transformers.models.auto import AutoModelForCausalLM

from prefline import files
from prefline.errors import InputError
from prefline.training import adapters, fidelity
from scripts.models import merge_adapter, pretrain


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = tmp_path_factory.mktemp("world")
    small_model.make_model(world / "start", initializer_range=0.2)
    draw = random.Random(1)
    rows = [{"text": " ".join(draw.choices(["the cat", "sat on", "the mat"], k=20))} for _ in range(24)]
    files.write_jsonl(world / "rows.jsonl", rows)
    return world


def train(world, out, **changed):
    """(weights of the adapters, metrics, rows of log.csv) of a training on texts."""
    data = {name: world / "rows.jsonl" for name in ("train_data", "eval_data")}
    usual = {"model": world / "start", "columns": {"text": "text"}, "max_length": 32}
    no_dropout = {"peft": small_model.QLORA | {"lora_dropout": 0.0}, "num_train_epochs": 2}
    pretrain.main(small_model.flags(out, **data | usual | no_dropout | changed))
    return small_model.results(out)


def made_up(world, out, peft):
    """Adapters of a training that never was, in `out`, with two sequences and what the model gives them."""
    adapters.import_packages(peft)
    frozen = adapters.load_frozen(
        world / "start", AutoModelForCausalLM, "float32", peft.get("quantization"), attn_implementation="sdpa"
    )
    model = adapters.put_on(frozen, peft).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    sequences = [([5, 6, 7], [8, 9]), ([10], [11, 12, 13])]
    (out / "model").mkdir()
    how = {"dtype": "float32", "peft": peft, "attn_implementation": "sdpa"}
    adapters.save(model, out / "model", how, sequences, fidelity.values(model, sequences))


@pytest.mark.parametrize("peft", [small_model.LORA, small_model.QLORA])
def test_a_merge_holds_one_model_at_a_time(world, tmp_path, monkeypatch, peft):
    made_up(world, tmp_path, peft)
    loaded = []

    def watched(load):
        def one_more(*args):
            assert not any(embeddings() is not None for embeddings in loaded)
            model = load(*args)
            loaded.append(weakref.ref(model.get_input_embeddings()))
            return model

        return one_more

    monkeypatch.setattr(merge_adapter, "with_adapters", watched(merge_adapter.with_adapters))
    monkeypatch.setattr(fidelity, "read_back", watched(fidelity.read_back))
    small_model.merge(tmp_path, world / "start", "quantized")
    assert len(loaded) == (5 if peft == small_model.QLORA else 3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_was_trained_is_what_the_dequantized_weights_give(world, tmp_path, dtype, capsys):
    weights, metrics, _ = train(world, tmp_path, dtype=dtype, gradient_checkpointing=True)
    assert metrics["eval_loss"] < metrics["eval_loss_before"] - 0.5
    assert any("lora_" in name for name in weights) and not any("base_layer" in name for name in weights)
    found = small_model.merge(tmp_path, world / "start", "quantized")
    assert found["sequences"] == len(files.read_json(tmp_path / "model" / adapters.RECORD)["prompt_ids"])
    rounding = 1e-4 if dtype == "float32" else 0.05
    assert found["quantized"]["mean_token"] < rounding < found["original"]["mean_token"]
    assert "(this is the model)" in capsys.readouterr().out

    merged = load_file(tmp_path / "merged/model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {getattr(torch, dtype)}
    start = load_file(world / "start/model.safetensors")
    assert merged.keys() == start.keys()
    config = files.read_json(tmp_path / "merged/config.json")
    assert "quantization_config" not in config
    assert config["eos_token_id"] == [4, 1] and config["use_cache"] is True

    other = small_model.merge(tmp_path, world / "start", "original")
    assert all(other[way] == found[way] for way in ("original", "quantized"))
    assert not torch.equal(
        load_file(tmp_path / "merged/model.safetensors")["model.layers.0.mlp.up_proj.weight"],
        merged["model.layers.0.mlp.up_proj.weight"],
    )


def test_inputs_that_are_left_as_they_come_change_no_number(world):
    model = adapters.load_frozen(world / "start", AutoModelForCausalLM, "bfloat16", None)
    model = adapters.put_on(model, small_model.LORA | {"lora_dropout": 0.0, "init_lora_weights": False})
    found = []
    for _ in range(2):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(torch.arange(20)[None]).logits
        logits.float().logsumexp(-1).sum().backward()
        found.append([logits, *(one.grad for one in model.parameters() if one.requires_grad)])
        adapters.leave_inputs(model)
    with pytest.raises(RuntimeError, match="dtype"):  # it did something
        model(torch.arange(20)[None])
    assert all(torch.equal(*both) for both in zip(*found, strict=True))


@pytest.mark.slow
def test_the_record_is_the_distance_of_the_models_that_rules_load(world, tmp_path):
    """Against PEFT's own model with the adapters beside its weights, and the one that was written."""
    import peft
    from transformers import AutoModelForCausalLM

    train(world, tmp_path, peft=small_model.LORA | {"lora_dropout": 0.0}, dtype="float32")
    found = small_model.merge(tmp_path, world / "start")
    start = AutoModelForCausalLM.from_pretrained(world / "start", dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(start, tmp_path / "model").eval()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    record = files.read_json(tmp_path / "model" / adapters.RECORD)
    sequences = list(zip(record["prompt_ids"], record["completion_ids"], strict=True))
    one, other = (fidelity.values(model, sequences) for model in (adapted, merged))
    assert fidelity.differences(one, other)["max_token"] < 1e-4
    assert found["original"]["max_token"] < 1e-4 and found.keys() == {
        *("merge_into", "sequences", "tokens", "original")
    }


def test_differences():
    one, other = torch.tensor([1.0, 2.0]), torch.tensor([1.5, 1.5])
    found = fidelity.differences([one, torch.tensor([3.0])], [other, torch.tensor([5.0])])
    assert found == {"mean_token": 1.0, "max_token": 2.0, "mean_sequence": 1.0, "max_sequence": 2.0}


def test_adapters_of_another_model_are_refused(world, tmp_path):
    train(world, tmp_path, num_train_epochs=0.1)
    small_model.make_model(tmp_path / "other", num_hidden_layers=1)
    with pytest.raises(InputError, match=r"was not trained on .*other"):
        small_model.merge(tmp_path, tmp_path / "other")


def test_without_weights_there_is_nothing_to_quantize(world, tmp_path):
    small_model.make_model(tmp_path / "start", weights=False)
    with pytest.raises(InputError, match="has no weights to quantize"):
        train(world, tmp_path, model=tmp_path / "start")

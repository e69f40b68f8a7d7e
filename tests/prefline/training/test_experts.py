"""The balance of experts: as transformers and TRL have it, packed or padded, and not in held-out losses."""

import copy

import pyarrow as pa
import pytest
import small_model
import torch
from datasets import Dataset
from transformers import TrainingArguments
from trl import DPOConfig, DPOTrainer

from measurements import architectures
from prefline import files
from prefline.training import experts, logps, losses
from prefline.training.preference_trainer import COLUMNS, Pairs, PreferenceTrainer, collate
from scripts.models import pretrain

COEFFICIENT = 0.3
VALUES = {"beta": 0.3, "label_smoothing": 0.0}


@pytest.fixture(params=["mixtral", "qwen3_moe", "olmoe", "granitemoe", "jetmoe"])
def model(request):
    return architectures.model(request.param).train()


def pairs(number):
    draw = torch.Generator().manual_seed(1)

    def ids(most):
        return torch.randint(
            3, 60, (int(torch.randint(1, most, (1,), generator=draw)),), generator=draw
        ).tolist()

    return [
        {"prompt_ids": ids(9), "chosen_ids": ids(12), "rejected_ids": ids(12)}
        | {"ref_chosen_logps": -20.0, "ref_rejected_logps": -21.0}
        for _ in range(number)
    ]


def gradients(model, loss):
    loss.backward()
    taken = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    model.zero_grad()
    return taken


def of_trl(model, rows, folder):
    theirs = DPOTrainer(
        model,
        copy.deepcopy(model),
        DPOConfig(
            output_dir=str(folder),
            bf16=False,
            report_to="none",
            use_cpu=True,
            beta=VALUES["beta"],
            router_aux_loss_coef=COEFFICIENT,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=small_model.make_tokenizer(),
    )
    theirs.precompute_ref_logps = True
    return theirs.compute_loss(model.train(), theirs.data_collator(rows))


def of_ours(model, rows, folder, coefficient=COEFFICIENT, checkpointing=False):
    table = pa.Table.from_pylist(rows)
    for name in set(COLUMNS) - set(table.column_names):
        table = table.append_column(name, pa.nulls(len(table), pa.float32()))
    examples = Pairs(table)
    ours = PreferenceTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True),
        train_dataset=examples,
        pair_loss=lambda batch: losses.total(batch, "sigmoid", VALUES),
        implied_rewards=lambda batch: losses.implied_rewards(batch, "sigmoid", VALUES),
        temperature=1.0,
        router_aux_loss_coef=coefficient,
    )
    if checkpointing:
        model.gradient_checkpointing_enable()
    batches = iter([collate([examples[row] for row in range(len(examples))])])
    (batch,), number = ours.get_batch_samples(batches, 1, model.device)
    return ours.compute_loss(model.train(), batch, num_items_in_batch=number)


@pytest.mark.parametrize("way", ["packed", "padded", "checkpoints"])
def test_loss_and_gradients_are_those_of_trl(model, tmp_path, way):
    if way == "checkpoints" and not model.supports_gradient_checkpointing:
        pytest.skip("the library cannot")
    rows = pairs(3)
    wanted = of_trl(model, rows, tmp_path)
    wanted_gradients = gradients(model, wanted)
    if way != "padded":
        logps.prepare(model)
    loss = of_ours(model, rows, tmp_path, checkpointing=way == "checkpoints")
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    assert loss.item() > of_ours(model, rows, tmp_path, coefficient=0.0).item() + 0.1
    for name, gradient in gradients(model, loss).items():
        scale = max(1, wanted_gradients[name].abs().max())
        assert (gradient - wanted_gradients[name]).abs().max() < 1e-4 * scale, name


def test_held_out_losses_are_without_it(tmp_path):
    shape = {"num_local_experts": 4, "num_key_value_heads": 2}
    start = small_model.make_model(tmp_path / "start", architecture="MixtralForCausalLM", **shape)
    texts = [{"text": "the cat sat on the mat " * 4} for _ in range(8)]
    data = files.write_jsonl(tmp_path / "texts.jsonl", texts) or tmp_path / "texts.jsonl"
    found = {}
    for coefficient in (0.0, COEFFICIENT):
        out = tmp_path / str(coefficient)
        values = {"model": start, "train_data": data, "eval_data": data, "columns": {"text": "text"}}
        values |= {"max_length": 16, "router_aux_loss_coef": coefficient, "num_train_epochs": 1}
        pretrain.main(small_model.flags(out, **values))
        weights, metrics, log = small_model.results(out)
        found[coefficient] = weights, metrics["eval_loss_before"], log[0]["loss"]
        config = files.read_json(out / "model/config.json")
        assert config["output_router_logits"] is False and config["router_aux_loss_coef"] == 0.001
    (plain, before, loss), (balanced, other_before, other_loss) = found.values()
    assert before == pytest.approx(other_before, abs=1e-6)
    assert other_loss > loss + 0.2  # an even choice would add 2 of 4 experts · 0.3
    assert any(not torch.equal(plain[name], balanced[name]) for name in plain)


def test_models_without_experts_have_none():
    assert not experts.has_router(architectures.model("llama"))

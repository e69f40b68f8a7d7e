"""Loss, gradients and metrics of one batch against TRL's DPOTrainer, from the same reference numbers."""

import copy

import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from small_model import make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
from trl import DPOConfig, DPOTrainer

from scripts.common import losses
from scripts.common.preference_trainer import METRICS, Pairs, PreferenceTrainer, collate

VOCABULARY = 61
BETA = 0.3
PAIRS = [
    {
        "prompt_ids": prompt,
        "chosen_ids": chosen,
        "rejected_ids": rejected,
        "ref_chosen_logps": ref_chosen,
        "ref_rejected_logps": ref_rejected,
        "chosen_reward": None,
        "rejected_reward": None,
    }
    for prompt, chosen, rejected, ref_chosen, ref_rejected in (
        ([5, 6, 7], [8, 9, 2], [10, 2], -13.0, -8.5),
        ([11], [12, 2], [13, 14, 15, 16, 2], -7.0, -21.0),
        ([17, 18, 19, 20, 21], [22, 23, 24, 2], [2], -17.5, -4.0),
    )
]


@pytest.fixture
def model():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.2, **shape))


def dpo_trainer(model, folder):
    """TRL's trainer; its dataset only has to be there, the batches are made from PAIRS."""
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    arguments = DPOConfig(output_dir=folder, beta=BETA, bf16=False, report_to="none", use_cpu=True)
    theirs = DPOTrainer(
        model,
        copy.deepcopy(model),
        arguments,
        train_dataset=Dataset.from_list([row]),
        processing_class=make_tokenizer(),
    )
    theirs.precompute_ref_logps = True
    return theirs


def gradients(model, loss):
    loss.backward()
    taken = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    return taken


def test_one_batch(model, tmp_path):
    theirs = dpo_trainer(model, str(tmp_path))
    model.train()
    wanted = theirs.compute_loss(model, theirs.data_collator(PAIRS))
    wanted_gradients = gradients(model, wanted)
    wanted_metrics = {name: values[0] for name, values in theirs._metrics["train"].items()}

    table = pa.Table.from_pylist(PAIRS)
    for name in ("chosen_reward", "rejected_reward"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.float32()))
    pairs = Pairs(table)
    ours = PreferenceTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True),
        train_dataset=pairs,
        pair_loss=lambda chosen, rejected, *_: losses.sigmoid(chosen, rejected, BETA, 0.0),
        reward_scale=BETA,
        temperature=1.0,
    )
    loss = ours.compute_loss(model, collate([pairs[row] for row in range(len(pairs))]))
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    for name, gradient in gradients(model, loss).items():
        assert (gradient - wanted_gradients[name]).abs().max() < 1e-5, name
    logs = {"loss": loss.item()}
    ours.log(logs)
    for name in METRICS[1:]:
        assert logs[name] == pytest.approx(wanted_metrics[name], abs=1e-5), name

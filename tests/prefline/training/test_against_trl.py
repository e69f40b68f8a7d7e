"""Loss, gradients and metrics of random batches against TRL's own trainers, from the same reference numbers.

TRL's code is what is called: DPOTrainer.compute_loss on a small Llama, and CPOTrainer.cpo_loss for the losses
that have no reference. Those of the authors' alone (rebel, sppo) are worked by hand in test_losses.py.
"""

import argparse
import copy
import random
import types

import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from small_model import make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
from trl import DPOConfig, DPOTrainer
from trl.experimental.cpo import CPOTrainer

from measurements import training
from prefline.training import losses
from prefline.training.loss_functions import Batch
from prefline.training.preference_trainer import METRICS, Pairs, PreferenceTrainer, collate

VOCABULARY = 61
NUMBERS = ("chosen_reward", "rejected_reward", "chosen_win_probability", "rejected_win_probability")
VALUES = {"beta": 0.3, "label_smoothing": 0.0, "discopop_tau": 0.2, "loss_weights": None}
# TRL's sigmoid has no label_smoothing; everything else is compared with one and the same set of values.
CASES = {
    "sigmoid": {},
    "robust": {"label_smoothing": 0.2},
    "exo_pair": {"label_smoothing": 0.01},
    "hinge": {},
    "ipo": {},
    "sigmoid_norm": {},
    "discopop": {},
    "nca_pair": {},
    "bco_pair": {},
    "sppo_hard": {},
    "apo_zero": {},
    "apo_down": {},
    "sft": {},
    "aot": {"label_smoothing": 0.1},
    "aot_unpaired": {"label_smoothing": 0.1},
}
SUMS = [
    (["sigmoid", "sft"], {"loss_weights": [1.0, 0.7]}),  # RPO
    (["sigmoid", "bco_pair", "sft"], {"loss_weights": [0.8, 0.2, 1.0]}),  # MPO
    (["hinge", "ipo"], {}),
]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.2, **shape))


def random_pairs(model, seed):
    """Pairs whose reference is some nats off the model, on either side, as in a training under way."""
    draw = random.Random(seed)

    def ids(longest):
        return [draw.randrange(VOCABULARY) for _ in range(draw.randint(1, longest))]

    pairs = []
    for _ in range(draw.randint(2, 6)):
        pair = {"prompt_ids": ids(6), "chosen_ids": ids(9), "rejected_ids": ids(9)}
        for side in ("chosen", "rejected"):
            sequence = torch.tensor([pair["prompt_ids"] + pair[f"{side}_ids"]])
            with torch.no_grad():
                logps = model(sequence).logits[0, :-1].log_softmax(-1).gather(1, sequence[0, 1:, None])
            pair[f"ref_{side}_logps"] = logps[len(pair["prompt_ids"]) - 1 :].sum().item() + draw.gauss(0, 4)
        pairs.append(pair)
    return pairs


@pytest.fixture(scope="module")
def dpo_trainer(model, tmp_path_factory):
    """TRL's trainer; its dataset only has to be there, the batches are made by random_pairs."""
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    folder = str(tmp_path_factory.mktemp("trl"))
    arguments = DPOConfig(
        output_dir=folder, bf16=False, report_to="none", use_cpu=True, discopop_tau=VALUES["discopop_tau"]
    )
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


def of_trl(theirs, model, pairs, loss_type, values):
    """(loss, gradients, metrics) as TRL has them."""
    theirs.loss_types = losses.names(loss_type)
    theirs.loss_weights = values["loss_weights"] or [1.0] * len(theirs.loss_types)
    theirs.beta, theirs.label_smoothing = values["beta"], values["label_smoothing"]
    theirs._metrics["train"].clear()
    model.train()
    loss = theirs.compute_loss(model, theirs.data_collator(pairs))
    metrics = {name: measured[0] for name, measured in theirs._metrics["train"].items()}
    return loss.item(), gradients(model, loss), metrics


def of_ours(model, pairs, loss_type, values, folder):
    table = pa.Table.from_pylist(pairs)
    for name in NUMBERS:
        table = table.append_column(name, pa.nulls(len(table), pa.float32()))
    rows = Pairs(table)
    ours = PreferenceTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True),
        train_dataset=rows,
        pair_loss=lambda batch: losses.total(batch, loss_type, values),
        implied_rewards=lambda batch: losses.implied_rewards(batch, loss_type, values),
        temperature=1.0,
    )
    batches = iter([collate([rows[row] for row in range(len(rows))])])
    (batch,), pairs = ours.get_batch_samples(batches, 1, model.device)
    loss = ours.compute_loss(model, batch, num_items_in_batch=pairs)
    logs = {"loss": loss.item()}
    ours.log(logs)
    return loss.item(), gradients(model, loss), logs


def close(value):
    return pytest.approx(value, rel=1e-5, abs=1e-5)


def test_every_loss_of_the_installed_trl_is_here():
    known = DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]
    for name in losses.LOSSES:
        assert (f"'{name}'" in known) == (name in CASES), name
    assert known.count("`'") == len(CASES)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("loss_type", "changes"), [*CASES.items(), *SUMS], ids=str)
def test_loss_gradients_and_metrics(dpo_trainer, model, tmp_path, loss_type, changes, seed):
    values, pairs = VALUES | changes, random_pairs(model, seed)
    wanted, wanted_gradients, wanted_metrics = of_trl(dpo_trainer, model, pairs, loss_type, values)
    loss, got, logs = of_ours(model, pairs, loss_type, values, tmp_path)
    assert loss == close(wanted)
    for name, gradient in got.items():
        scale = max(1, wanted_gradients[name].abs().max())
        assert (gradient - wanted_gradients[name]).abs().max() < 1e-5 * scale, name
    for name in METRICS[1:]:
        assert logs[name] == close(wanted_metrics[name]), name


@pytest.mark.slow
def test_fifty_steps_of_training_are_those_of_trl(model, tmp_path):
    """Each in its own trainer, optimizer and schedule included, from the same seed."""
    make_tokenizer().save_pretrained(tmp_path)
    settings = {"learning_rate": 1e-3, "global_batch_size": 4, "rows": 2, "dtype": "float32", "seed": 1}
    settings |= {"optim": "adamw_torch_fused", "gradient_checkpointing": False, "model": str(tmp_path)}
    pairs = [pair for seed in range(60) for pair in random_pairs(model, seed)][:200]
    found, trained = [], []
    for way in (training.ours, training.trl):
        trained.append(copy.deepcopy(model))
        found.append(way(trained[-1], pairs, str(tmp_path), argparse.Namespace(**settings))["found"])
    ours, theirs = found
    assert len(ours) == 50
    assert ours == pytest.approx(theirs, abs=training.TOLERANCE)
    for start, one, other in zip(model.parameters(), *(made.parameters() for made in trained), strict=True):
        assert (one - other).abs().max() < 1e-3 < (one - start).abs().max()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("name", "theirs"),
    [("simpo", {"loss_type": "simpo"}), ("cpo", {"loss_type": "sigmoid"})],
    ids=["simpo", "cpo"],
)
def test_losses_without_a_reference(name, theirs, seed):
    """CPOTrainer's loss of logits, from which its own get_batch_logps takes the log-probabilities."""
    values = {"beta": 2.0, "label_smoothing": 0.1, "simpo_gamma": 0.7}
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(VOCABULARY, (8, 12), generator=generator)
    tokens = torch.randint(1, 10, (8,), generator=generator)
    labels[torch.arange(12) < (12 - tokens)[:, None]] = -100
    logits = torch.randn(8, 12, VOCABULARY, generator=generator).requires_grad_()

    trl = types.SimpleNamespace(
        **theirs, **values, alpha=0.0, accelerator=types.SimpleNamespace(device=torch.device("cpu"))
    )
    sides = CPOTrainer.get_batch_logps(logits, labels, average_log_prob=name == "simpo").chunk(2)
    wanted, *wanted_rewards = CPOTrainer.cpo_loss(trl, *sides)
    (wanted_gradient,) = torch.autograd.grad(wanted.mean(), logits)

    logps = CPOTrainer.get_batch_logps(logits, labels).chunk(2)
    nothing = torch.full((4,), torch.nan)
    batch = Batch(*logps, nothing, nothing, *tokens.chunk(2), *[nothing] * 5)
    loss = losses.total(batch, name, values)
    (gradient,) = torch.autograd.grad(loss.mean(), logits, retain_graph=True)
    assert loss.tolist() == close(wanted.tolist())
    assert (gradient - wanted_gradient).abs().max() < 1e-5
    for ours, of_theirs in zip(losses.implied_rewards(batch, name, values), wanted_rewards, strict=True):
        assert ours.tolist() == close(of_theirs.tolist())

"""Training from preference pairs and precomputed reference log-probabilities on transformers' Trainer.

Chosen and rejected go through the policy in one forward pass, unpadded and with one prompt for both
(logps.py); there is no second model. A step's loss is the mean over the pairs of its global batch, however
they are spread over accumulation steps and devices, so 8 × 1 and 1 × 8 give the same trajectory. A device
distributes its pairs of a step over batches of similar size, since the largest batch determines the memory.
"""

import contextlib

import numpy as np
import pyarrow.compute as pc
import torch
from transformers import Trainer

from prefline.training import adapters, experts, logps, repeated_rows
from prefline.training.loss_functions import Batch

METRICS = (
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
)
COLUMNS = (
    *("ref_chosen_logps", "ref_rejected_logps", "chosen_reward", "rejected_reward"),
    *("chosen_win_probability", "rejected_win_probability"),
)
SCALARS = (*COLUMNS, "chosen_tokens", "rejected_tokens", "mean_chosen_tokens")


class Pairs:
    """Rows of a pyarrow Table as training examples; ids stay in Arrow's memory until they are asked for.

    The table has prompt_ids, chosen_ids and rejected_ids, lists of int32, and COLUMNS, float32; what is null
    there becomes NaN. rows: int64 (n,), numbers of those that are examples; None: all.
    """

    def __init__(self, table, rows=None):
        self.rows = np.arange(len(table)) if rows is None else rows
        self.ids, self.starts = {}, {}
        for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
            chunks = table[name].chunks
            self.ids[name] = [(chunk.values.to_numpy(), chunk.offsets.to_numpy()) for chunk in chunks]
            self.starts[name] = np.cumsum([0, *map(len, chunks)])
        self.scalars = {name: self._numbers(table[name]) for name in COLUMNS}
        for side in ("chosen", "rejected"):
            self.scalars[f"{side}_tokens"] = self._numbers(pc.list_value_length(table[f"{side}_ids"]))
        tokens = self.scalars["chosen_tokens"]
        self.scalars["mean_chosen_tokens"] = np.full_like(tokens, tokens.mean(dtype=np.float64))

    def _numbers(self, column):
        return column.to_numpy().astype(np.float32)[self.rows]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        pair = {name: values[number] for name, values in self.scalars.items()}
        for name, chunks in self.ids.items():
            row = self.rows[number]
            chunk = np.searchsorted(self.starts[name], row, side="right") - 1
            values, offsets = chunks[chunk]
            row -= self.starts[name][chunk]
            pair[name] = values[offsets[row] : offsets[row + 1]].astype(np.int64)
        return pair


def collate(pairs):
    """Return a batch of N pairs: SCALARS, float32 (N,), and logps.collate's tensors of N groups."""
    batch = {name: torch.tensor(np.array([pair[name] for pair in pairs])) for name in SCALARS}
    groups = [(pair["prompt_ids"], [pair["chosen_ids"], pair["rejected_ids"]]) for pair in pairs]
    return batch | logps.collate(groups)


def balanced(batches):
    """Return the pairs of `batches` (list of `collate`'s results) in as many batches of similar size.

    None has more pairs than the largest had. The longest pairs are placed first, each in the batch that has
    the fewest tokens and room for it.
    """
    if len(batches) == 1:
        return batches
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    lengths = whole["layout"].sum(dim=1).tolist()
    ids = whole.pop("input_ids").split(lengths)
    room = max(len(batch["layout"]) for batch in batches)
    groups, tokens = [[] for _ in batches], [0] * len(batches)
    for pair in sorted(range(len(ids)), key=lambda pair: (-lengths[pair], pair)):
        group = min((g for g in range(len(groups)) if len(groups[g]) < room), key=tokens.__getitem__)
        groups[group].append(pair)
        tokens[group] += lengths[pair]
    return [
        {name: column[group] for name, column in whole.items()}
        | {"input_ids": torch.cat([ids[pair] for pair in group])}
        for group in groups
    ]


def means(sums):
    """Return METRICS (dict of float) from the row sums of all batches' PreferenceTrainer.measure counts."""
    *values, pairs = sums.tolist()
    return {name: value / pairs for name, value in zip(METRICS, values, strict=True)}


class PreferenceTrainer(repeated_rows.Weighted, Trainer):
    """Trainer on batches of `collate`.

    pair_loss and implied_rewards: functions of a Batch of N pairs: the pairs' losses (N,), and the
    rewards (chosen, rejected), each (N,), that the policy implies. temperature: float, of the softmax.
    router_aux_loss_coef: float, what the balance of a mixture of experts counts (experts.py).
    """

    def __init__(self, *args, pair_loss, implied_rewards, temperature, router_aux_loss_coef=0.0, **kwargs):
        super().__init__(*args, data_collator=collate, **kwargs)
        self.pair_loss = pair_loss
        self.implied_rewards = implied_rewards
        self.temperature = temperature
        self.router_aux_loss_coef = router_aux_loss_coef
        balanced = router_aux_loss_coef and experts.has_router(self.model)
        self.recorder = experts.Recorder(self.model) if balanced else None
        self.sums = 0  # of what `measure` counts, since the last log
        if self.args.bf16:
            adapters.leave_inputs(self.model)

    def rows(self, batch):
        return len(batch["ref_chosen_logps"])

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Return an optimizer step's batches and the number of its pairs.

        Each gets mean_chosen_tokens, which is the step's, and an attention_mask, by which Trainer counts
        tokens, those of a prompt twice.
        """
        batches, pairs = super().get_batch_samples(epoch_iterator, num_batches, device)
        tokens = sum((batch["weights"] * batch["chosen_tokens"]).sum() for batch in batches).to(device)
        mean = self.accelerator.reduce(tokens, reduction="sum") / pairs
        batches = balanced(batches)
        for batch in batches:
            batch["mean_chosen_tokens"] = torch.full_like(batch["weights"], mean.item())
            prompts, chosen, rejected = batch["layout"].sum(dim=0).tolist()
            batch["attention_mask"] = torch.ones(2 * prompts + chosen + rejected, dtype=torch.int64)
        return batches, pairs

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the sum of the pairs' losses, divided by num_items_in_batch, the pairs of the step."""
        with self.recorder.recording() if self.recorder else contextlib.nullcontext():
            losses, counted = self.measure(model, inputs)
        self.sums = self.sums + (counted * inputs["weights"]).sum(dim=1)
        if self.recorder:
            losses = losses + self.router_aux_loss_coef * self.recorder.loss(inputs["layout"])
        return self.mean(losses, inputs["weights"], num_items_in_batch)

    def measure(self, model, inputs):
        """Return (losses, counted) of a batch of N pairs: float32 (N,), and (8, N), to sum for `means`."""
        chosen_logps, rejected_logps = self._logps(model, inputs).split(self.rows(inputs))
        batch = Batch(chosen_logps, rejected_logps, **{name: inputs[name] for name in SCALARS})
        losses = self.pair_loss(batch)
        chosen, rejected = self.implied_rewards(batch)
        correct = (chosen > rejected).float()
        columns = [losses, chosen, rejected, chosen - rejected, correct, chosen_logps, rejected_logps]
        return losses, torch.stack([*columns, torch.ones_like(losses)]).detach()

    def log(self, logs, start_time=None):
        """Log a step's loss with METRICS of its pairs."""
        if "loss" in logs:
            sums, self.sums = self.accelerator.reduce(self.sums, reduction="sum"), 0
            logs.update({name: value for name, value in means(sums).items() if name != "loss"})
        super().log(logs, start_time)

    def _logps(self, model, inputs):
        """Return chosen's, then rejected's, in `model`'s forward, so that wrappers (DDP, FSDP) see one.

        They synchronize gradients and gather weights around `forward`: reaching past it trains every
        device alone.
        """
        module = self.accelerator.unwrap_model(model)
        forward = module.forward

        def redirected(**batch):
            return (
                logps.completion_logps(module, **batch, temperature=self.temperature).view(-1, 2).T.flatten()
            )

        module.forward = redirected
        try:
            with self.accelerator.autocast():
                return model(**{name: inputs[name] for name in ("input_ids", "layout")})
        finally:
            module.forward = forward

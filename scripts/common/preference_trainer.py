"""Training from preference pairs and precomputed reference log-probabilities on transformers' Trainer.

Chosen and rejected go through the policy in one forward pass, unpadded and with one prompt for both, by way
of logps.py; there is no second model.
A step's loss is the mean over the pairs of its global batch, however they are spread over accumulation
steps and devices, so 8 × 1 and 1 × 8 are one trajectory. Where the last pairs of an epoch do not fill the
batches of all devices, accelerate fills up with pairs that were there before: those weigh nothing.
"""

import numpy as np
import torch
from transformers import Trainer

from scripts.common import logps

METRICS = (
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
)
SCALARS = ("ref_chosen_logps", "ref_rejected_logps", "chosen_reward", "rejected_reward")


class Pairs:
    """The rows of a pyarrow Table as training examples; ids stay in Arrow's memory until they are asked for.

    The table has prompt_ids, chosen_ids and rejected_ids, lists of int32, and SCALARS, float32; a reward
    that is null becomes NaN.
    """

    def __init__(self, table):
        self.ids = {}
        for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
            column = table[name].combine_chunks()
            self.ids[name] = column.values.to_numpy(), column.offsets.to_numpy()
        self.scalars = {name: table[name].to_numpy().astype(np.float32) for name in SCALARS}
        self.rows = len(table)

    def __len__(self):
        return self.rows

    def __getitem__(self, row):
        pair = {name: values[row] for name, values in self.scalars.items()}
        for name, (values, offsets) in self.ids.items():
            pair[name] = values[offsets[row] : offsets[row + 1]].astype(np.int64)
        return pair


def collate(pairs):
    """A batch of N pairs: SCALARS and weights, float32 (N,), and logps.collate's tensors of N groups.

    Weights are 1; see PreferenceTrainer.get_batch_samples. The attention_mask is there for Trainer, which
    counts tokens by it, those of a prompt twice; the model needs none.
    """
    batch = {name: torch.tensor(np.array([pair[name] for pair in pairs])) for name in SCALARS}
    batch["weights"] = torch.ones(len(pairs))
    batch |= logps.collate(
        [(pair["prompt_ids"], [pair["chosen_ids"], pair["rejected_ids"]]) for pair in pairs]
    )
    prompts, chosen, rejected = batch["layout"].sum(dim=0).tolist()
    batch["attention_mask"] = torch.ones(2 * prompts + chosen + rejected, dtype=torch.int64)
    return batch


def means(sums):
    """METRICS (dict of float) from PreferenceTrainer.measure's sums, added up over any number of batches."""
    *values, pairs = sums.tolist()
    return {name: value / pairs for name, value in zip(METRICS, values, strict=True)}


def disable_dropout(model):
    """Switch off the model's own dropout, not that of adapters: its noise is no part of a log-ratio."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" not in name:
            module.p = 0.0


class PreferenceTrainer(Trainer):
    """Trainer on batches of `collate`.

    pair_loss: function of (chosen_logratios, rejected_logratios, chosen_rewards, rejected_rewards), all
    float32 (N,), that returns the pairs' losses (N,). reward_scale: float, what a log-ratio is multiplied
    with to be the reward that the policy implies (DPO: beta; REBEL: 1 / eta, in the reward model's units).
    temperature: float, of the softmax.
    """

    def __init__(self, *args, pair_loss, reward_scale, temperature, **kwargs):
        super().__init__(*args, data_collator=collate, **kwargs)
        self.pair_loss = pair_loss
        self.reward_scale = reward_scale
        self.temperature = temperature
        self.loss_is_scaled_for_ga = True
        self.sums = 0  # of `measure` since the last log

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches of an optimizer step and the number of their pairs over all devices.

        What fills up the last batches of an epoch gets the weight 0.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        state = self.accelerator.gradient_state
        if state.end_of_dataloader and state.remainder > 0:
            weights = batches[-1]["weights"]
            weights[max(state.remainder - self.accelerator.process_index * len(weights), 0) :] = 0
        pairs = torch.stack([batch["weights"].sum() for batch in batches]).sum().to(device)
        return batches, self.accelerator.reduce(pairs, reduction="sum")

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The sum of the pairs' losses over num_items_in_batch pairs, or their mean where that is None.

        Gradients are averaged over processes afterwards, hence the factor.
        """
        losses, sums = self.measure(model, inputs)
        self.sums = self.sums + sums
        if num_items_in_batch is None:
            return losses.mean()
        return (losses * inputs["weights"]).sum() * self.accelerator.num_processes / num_items_in_batch

    def measure(self, model, inputs):
        """(losses, sums) of a batch of N pairs: float32 (N,), and the sums over them that `means` takes."""
        chosen_logps, rejected_logps = self._logps(model, inputs).split(len(inputs["ref_chosen_logps"]))
        chosen_logratios = chosen_logps - inputs["ref_chosen_logps"]
        rejected_logratios = rejected_logps - inputs["ref_rejected_logps"]
        losses = self.pair_loss(
            chosen_logratios, rejected_logratios, inputs["chosen_reward"], inputs["rejected_reward"]
        )
        chosen, rejected = self.reward_scale * chosen_logratios, self.reward_scale * rejected_logratios
        correct = (chosen > rejected).float()
        columns = [losses, chosen, rejected, chosen - rejected, correct, chosen_logps, rejected_logps]
        counted = torch.stack([*columns, torch.ones_like(losses)]).detach() * inputs["weights"]
        return losses, counted.sum(dim=1)

    def log(self, logs, start_time=None):
        """Log a step's loss with METRICS of its pairs."""
        if "loss" in logs:
            sums, self.sums = self.accelerator.reduce(self.sums, reduction="sum"), 0
            logs.update({name: value for name, value in means(sums).items() if name != "loss"})
        super().log(logs, start_time)

    def _logps(self, model, inputs):
        """Chosen's, then rejected's, within the forward of `model`: wrappers (DDP, FSDP) see a forward pass.

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

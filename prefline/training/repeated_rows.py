"""Rows that fill up an epoch's last batches, so that every device has one, and that must weigh nothing.

Where the rows of an epoch do not come out even, accelerate takes some from its beginning a second time. With
them in the loss, several devices would end elsewhere than one. (accelerate knows their number only until a
training is resumed in the middle of an epoch.)
"""

import torch

IGNORED = -100  # transformers' label of what is not learnt


def real_rows(trainer, rows):
    """Return how many (int) of this process's `rows` in the batch that was drawn last are no filler."""
    if not trainer.accelerator.gradient_state.end_of_dataloader:
        return rows
    args = trainer.args
    left = len(trainer.train_dataset) % (args.train_batch_size * args.world_size)
    return min(max(left - args.process_index * rows, 0), rows) if left else rows


class Unlabelled:
    """To be put before a Trainer on batches with `labels`, int64 (rows, tokens): those of filler are IGNORED.

    Its loss is the mean over the labels of a step.
    """

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        return super().get_batch_samples(map(self._without_filler, epoch_iterator), num_batches, device)

    def _without_filler(self, batch):
        labels = batch["labels"].clone()
        labels[real_rows(self, len(labels)) :] = IGNORED
        return batch | {"labels": labels}


class Weighted:
    """To be put before a Trainer whose loss is the mean over the rows of a step.

    Batches get `weights`, float32 (rows,), 1 or, for filler, 0. compute_loss gets their sum over the batches
    of the step and all devices as num_items_in_batch.
    """

    loss_is_scaled_for_ga = True  # each batch's part of the mean is

    def rows(self, batch):
        """Return the number of rows of a batch."""
        raise NotImplementedError

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        weighted = map(self._with_weights, epoch_iterator)
        batches, _ = super().get_batch_samples(weighted, num_batches, device)
        total = sum(batch["weights"].sum() for batch in batches).to(device)
        return batches, self.accelerator.reduce(total, reduction="sum")

    def mean(self, losses, weights, total):
        """Return this batch's part (scalar) of the mean loss; total: num_items_in_batch.

        The factor is needed because gradients are averaged over processes afterwards.
        """
        return (losses * weights).sum() * self.accelerator.num_processes / total

    def _with_weights(self, batch):
        weights = torch.ones(self.rows(batch), device=batch["input_ids"].device)
        weights[real_rows(self, len(weights)) :] = 0
        return batch | {"weights": weights}

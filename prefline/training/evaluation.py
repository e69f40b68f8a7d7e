"""Means over a trainer's held-out rows that depend on neither batch sizes nor devices."""

from prefline.training import experts, precision, process, sharding


def held_out(trainer, measure):
    """Sum (float64 tensor) what `measure(model, batch)` returns over the batches of trainer.eval_dataset.

    Trainer.evaluate averages the batches' averages instead: its results depend on batch size and devices.
    """
    import torch

    trainer.model.to(trainer.args.device).eval()
    rows = range(process.rank(), len(trainer.eval_dataset), process.world_size())
    size = trainer.args.per_device_eval_batch_size
    totals = 0
    for start in range(0, -(-len(trainer.eval_dataset) // process.world_size()), size):
        # Where weights are gathered from all processes, all take part in every batch, with rows or without.
        own = rows[start : start + size]
        batch = trainer.data_collator([trainer.eval_dataset[row] for row in own or [0]])
        batch = {name: tensor.to(trainer.args.device) for name, tensor in batch.items()}
        computed = precision.computing(trainer.model)  # before its first step, a trainer has no autocast
        with torch.no_grad(), computed, trainer.compute_loss_context_manager(), sharding.as_it_is(trainer):
            sums = measure(trainer.model, batch).cpu().double()
        totals = totals + sums * bool(own)
    return (
        trainer.accelerator.reduce(totals.to(trainer.args.device)).cpu()
        if process.world_size() > 1
        else totals
    )


def mean_token_loss(trainer):
    """Return the mean loss (float, nats per token) over all labelled tokens of trainer.eval_dataset."""
    import torch

    def measure(model, batch):
        tokens = (batch["labels"][:, 1:] != -100).sum()
        return torch.stack([model(**batch).loss.float() * tokens, tokens.float()])

    with experts.unbalanced(trainer.model):
        loss, tokens = held_out(trainer, measure).tolist()
    return loss / tokens

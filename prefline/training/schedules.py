"""Learning rates whose warm-up begins above 0.

The first of transformers' warm-up steps has a learning rate of 0. Where completions are sampled, such a step
would sample and score them for nothing.
"""

from torch.optim.lr_scheduler import LambdaLR


def above_zero(scheduler, warmup_steps):
    """Make the `warmup_steps` first rates of a LambdaLR 1/(n + 1), 2/(n + 1), … of its peak; return it.

    The rates after the warm-up do not change.
    """

    def rising(rate):
        return lambda step: (step + 1) / (warmup_steps + 1) if step < warmup_steps else rate(step)

    for group in scheduler.optimizer.param_groups:
        group["lr"] = group["initial_lr"]
    return LambdaLR(scheduler.optimizer, [rising(rate) for rate in scheduler.lr_lambdas])


class AboveZero:
    """A base class to put before a transformers.Trainer, for its learning rates."""

    def create_scheduler(self, num_training_steps, optimizer=None):
        if self.lr_scheduler is None:
            made = super().create_scheduler(num_training_steps, optimizer)
            self.lr_scheduler = above_zero(made, self.args.get_warmup_steps(num_training_steps))
        return self.lr_scheduler

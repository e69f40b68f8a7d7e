"""Report a running training to TensorBoard, and to W&B if a project is named.

    tensorboard --logdir work

shows all trainings side by side, by the names of what they make: event files are in WORK_DIR/tensorboard/.
Names are those of transformers' own reports (train/loss, eval/rewards/margins). Nothing here shapes
a result: a disk that is full costs the report, never the training.
"""

import os
from pathlib import Path

from prefline.errors import InputError

OFFLINE = ("offline", "disabled", "dryrun")


def check(project):
    """Raise InputError if W&B is asked for (project: str, or "") and could only fail, or ask for a key."""
    if project and os.environ.get("WANDB_MODE") not in OFFLINE and not os.environ.get("WANDB_API_KEY"):
        raise InputError(
            f"wandb_project is {project}, but the environment has no WANDB_API_KEY; export it, or export "
            "WANDB_MODE=offline and upload later with `wandb sync`"
        )


class Reports:
    """The open reports of one training."""

    def __init__(self, settings, key, step):
        """Start tracking. settings: a training's Settings; key: its work key; step: the resumed one."""
        from torch.utils.tensorboard import SummaryWriter

        name = f"{Path(settings.out).name}-{key[:8]}"
        folder = Path(settings.work_dir) / "tensorboard" / name
        self.wandb = None
        try:
            # Later steps that an interrupted run has written are hidden.
            self.tensorboard = SummaryWriter(folder, purge_step=step + 1)
        except OSError as error:
            self._give_up(error)
        if settings.wandb_project:
            import wandb

            self.wandb = wandb.init(
                project=settings.wandb_project,
                name=name,
                id=f"{name}-{key[8:16]}",
                resume="allow",
                dir=settings.work_dir,
                config=settings.params,
                # The log of the job is Snakemake's matter, and has been read for secrets by nobody.
                settings=wandb.Settings(console="off", save_code=False, silent=True),
            )

    def write(self, step, numbers):
        """Report the `numbers` (dict of float) of a step, whose names are log.csv's."""
        named = {_name(name): value for name, value in numbers.items() if name not in ("step", "epoch")}
        if self.tensorboard is not None:
            try:
                for name, value in named.items():
                    self.tensorboard.add_scalar(name, value, step)
            except OSError as error:
                self._give_up(error)
        if self.wandb is not None:
            self.wandb.log(named, step=step)

    def close(self):
        if self.tensorboard is not None:
            self.tensorboard.close()
        if self.wandb is not None:
            self.wandb.finish()

    def _give_up(self, error):
        self.tensorboard = None
        print(f"TensorBoard's event files: {error}; continuing without them", flush=True)


def _name(name):
    """Return eval_loss -> eval/loss, loss -> train/loss."""
    return f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"

"""The settings of every training: the keys of `training_defaults`, the seed, paths, and batch sizes.

A script calls `Settings.add_flags(parser)` beside its own flags, and `Settings.of(vars(args))`.
"""

import dataclasses
import json

from prefline.config import section

# Paths and speed; all other settings of a script change the weights.
PATHS = {
    "model": "directory of the model that training starts from",
    "work-dir": "folder for checkpoints; safe to delete at any time",
    "out": "model directory to write",
    "manifest": "the directory's manifest (json)",
    "metrics": "losses, speed, memory (json)",
    "log-csv": "training curves (csv)",
    "wandb-project": "project of Weights & Biases to report to; empty reports nothing there",
}
PACE = {
    "per-device-train-batch-size": (int, "most rows in memory at once on a device"),
    "gradient-checkpointing": (json.loads, "true: recompute activations instead of keeping them"),
    "save-steps": (int, "optimizer steps between checkpoints"),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one training; the schema and the table above explain the keys.

    params: dict, all that shapes the trained weights, a script's own flags included: for the manifest and the
    work key.
    """

    model: str
    learning_rate: float
    lr_scheduler_type: str
    warmup_ratio: float
    num_train_epochs: float
    global_batch_size: int
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    optim: str
    max_grad_norm: float
    dtype: str
    attn_implementation: str
    eval_steps: int | None
    checkpoint: str
    early_stopping_patience: int | None
    router_aux_loss_coef: float
    peft: dict | None
    seed: int
    per_device_train_batch_size: int
    gradient_checkpointing: bool
    save_steps: int
    work_dir: str
    out: str
    manifest: str
    metrics: str
    log_csv: str
    wandb_project: str
    params: dict

    @staticmethod
    def add_flags(parser):
        """Add the flags that every training has to an argparse parser; none has a default."""
        section.add(parser, "training_defaults")
        section.add(parser, "seed")
        for name, (kind, text) in PACE.items():
            parser.add_argument(f"--{name}", type=kind, required=True, help=text)
        for name, text in PATHS.items():
            parser.add_argument(f"--{name}", required=True, help=text)

    @classmethod
    def of(cls, values):
        """Return the Settings of a training's values (dict), as its script was told them."""
        shapeless = {name.replace("-", "_") for name in (*PATHS, *PACE)}
        params = {key: value for key, value in sorted(values.items()) if key not in shapeless}
        known = {field.name for field in dataclasses.fields(cls)} - {"params"}
        return cls(**{name: values[name] for name in known}, params=params)

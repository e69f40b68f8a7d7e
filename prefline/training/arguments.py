"""The arguments that transformers' Trainer and TRL's take, of a training's Settings.

dtype float32 trains in float32. bfloat16 keeps float32 master weights and computes in bfloat16 (autocast).
"""

from prefline import seeds
from prefline.errors import InputError
from prefline.training import early_stopping, process, trackers

# Keys with the same names in transformers.
SAME = ("learning_rate", "lr_scheduler_type", "num_train_epochs", "weight_decay", "adam_beta1", "adam_beta2")
SAME += ("adam_epsilon", "optim", "max_grad_norm", "gradient_checkpointing", "save_steps")


def accumulation(global_batch_size, per_device, world_size):
    """Return (rows in a batch, batches per optimizer step) on each device: the fewest batches that fit.

    per_device: int, most rows in a batch. Raises InputError if the devices cannot share the global batch.
    """
    if global_batch_size % world_size:
        below = global_batch_size // world_size * world_size
        sizes = [size for size in (below, below + world_size) if size]
        devices = [number for number in range(1, global_batch_size + 1) if global_batch_size % number == 0]
        fewer = max(number for number in devices if number < world_size)
        more = [number for number in devices if number > world_size][:1]
        raise InputError(
            f"global_batch_size {global_batch_size} cannot be shared by {world_size} devices; take a "
            f"global_batch_size of {_either(sizes)}, or {_either([fewer, *more])} devices"
        )
    share = global_batch_size // world_size
    rows = next(rows for rows in range(min(share, per_device), 0, -1) if share % rows == 0)
    return rows, share // rows


def _either(numbers):
    return " or ".join(map(str, numbers))


def shares(settings):
    """Return `accumulation` of a training's Settings and the devices that there are."""
    per_device, devices = settings.per_device_train_batch_size, process.world_size()
    return accumulation(settings.global_batch_size, per_device, devices)


def make(settings, cls=None, **overrides):
    """Return the transformers.TrainingArguments, or their subclass `cls`, of a training's Settings.

    Every step is logged to the trainer's state: each loss is checked for NaN, and log.csv is the same after
    an interruption.
    """
    process.quiet()
    early_stopping.check(vars(settings))
    trackers.check(settings.wandb_project)
    import torch
    from transformers import TrainingArguments

    rows, batches = shares(settings)
    cls = cls or TrainingArguments
    if "router_aux_loss_coef" in cls.__dataclass_fields__:  # TRL's that have it
        overrides["router_aux_loss_coef"] = settings.router_aux_loss_coef
    made = cls(
        **{
            **{name: getattr(settings, name) for name in SAME},
            "output_dir": settings.work_dir,
            # Below 1, `warmup_steps` is a ratio; 1 would be a single step.
            "warmup_steps": min(settings.warmup_ratio, 1 - 1e-9),
            "per_device_train_batch_size": rows,
            "per_device_eval_batch_size": rows,
            "gradient_accumulation_steps": batches,
            "bf16": settings.dtype == "bfloat16",
            "ddp_find_unused_parameters": False,
            "seed": seeds.for_libraries(settings.seed, "training"),
            "data_seed": seeds.for_libraries(settings.seed, "data order"),
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "include_num_input_tokens_seen": "non_padding",
            "save_strategy": "steps",
            "eval_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_num_workers": 0,
            "dataloader_pin_memory": torch.cuda.is_available(),
            # Without it, CPUs refuse bfloat16, and processes that a launcher starts would each train alone.
            "use_cpu": not torch.accelerator.is_available(),
            **overrides,
        }
    )
    if process.world_size() == 1:
        # A process that sees several GPUs would share the batch among them: the launcher starts one for each.
        made._n_gpu = min(made.n_gpu, 1)
    return made

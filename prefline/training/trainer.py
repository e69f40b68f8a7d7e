"""What every training shares: its flags, TrainingArguments, starting weights, checkpoints and saved model.

A training script calls, in this order,

    add_arguments(parser)                   the flags: the keys of the schema's `optimization`, and the paths
    work_key(args, script, inputs)          names this training by all that shapes it
    restore(args, key, rule, parents)       its results, if they were kept: then nothing else is to be done
    load_model(args, AutoModelForCausalLM)  weights to start from, with adapters where `--peft` has them
    arguments(args, cls)                    TrainingArguments, SFTConfig, RewardConfig
    fit(trainer, args, key, rows, evaluate) trains, going on with what was interrupted; writes log.csv
    save(model, args, rule, parents, rows)  the directory of the model or of its adapters, then its manifest
    keep(args, key)                         last of all: the results for another time, instead of checkpoints

dtype float32 trains in float32. bfloat16 keeps float32 master weights and computes in bfloat16 (autocast);
the saved weights are rounded to bfloat16, as every matrix product of the training saw them. With adapters,
the frozen weights are held in bfloat16, or quantized, and the adapters in float32;
scripts/models/merge_adapter.py makes a model of both.

Torch and transformers are imported inside functions, so that `--help` is instant.
"""

import hashlib
import json
import math
import os
import shutil
from pathlib import Path

from prefline import files, seeds
from prefline.errors import InputError
from prefline.provenance import imports, manifest
from prefline.training import adapters, cache, early_stopping, models, sharding, trackers

# Flags that say where things stand or how fast the work goes; every other one shapes the trained weights.
PATHS = ("model", "work_dir", "out", "manifest", "metrics", "log_csv", "wandb_project")
PACE = ("per_device_train_batch_size", "gradient_checkpointing", "save_steps")
# Rows of log.csv, whatever the length of the training.
LOG_ROWS = 100


def add_arguments(parser):
    """Add the flags that every training has; none has a default."""
    number, whole = float, int
    for name, kind, text in (
        ("learning-rate", number, "peak learning rate of AdamW"),
        ("lr-scheduler-type", str, "cosine, linear or constant_with_warmup"),
        ("warmup-ratio", number, "part of all steps in which the rate goes up from 0"),
        ("num-train-epochs", number, "passes over the data"),
        ("global-batch-size", whole, "rows per optimizer step over all devices"),
        ("per-device-train-batch-size", whole, "most rows in memory at once on a device"),
        ("weight-decay", number, "AdamW's decoupled weight decay"),
        ("adam-beta1", number, "AdamW's decay of the first moment"),
        ("adam-beta2", number, "AdamW's decay of the second moment"),
        ("adam-epsilon", number, "AdamW's epsilon"),
        ("optim", str, "transformers' name of the optimizer: adamw_torch_fused, adamw_8bit, …"),
        ("max-grad-norm", number, "gradients are clipped to this norm; 0 does not clip"),
        ("dtype", str, "float32 or bfloat16"),
        ("attn-implementation", str, "transformers' name of the attention: sdpa, flash_attention_2, …"),
        ("gradient-checkpointing", json.loads, "true: recompute activations instead of keeping them"),
        ("save-steps", whole, "optimizer steps between checkpoints"),
        ("eval-steps", json.loads, "null, or optimizer steps between evaluations of the held-out data"),
        ("checkpoint", str, "last, or best: the weights whose held-out loss is the lowest"),
        (
            "early-stopping-patience",
            json.loads,
            "null, or evaluations without a lower held-out loss after which training stops",
        ),
        ("peft", json.loads, "null, or the adapters as JSON: r, lora_alpha, …, and quantization, if any"),
        ("seed", whole, "the experiment's seed"),
        ("wandb-project", str, "project of Weights & Biases to report to; empty reports nothing there"),
        ("work-dir", str, "folder for checkpoints; safe to delete at any time"),
        ("out", str, "model directory to write"),
        ("manifest", str, "the directory's manifest (json)"),
        ("metrics", str, "losses, speed, memory (json)"),
        ("log-csv", str, "the course of the training (csv)"),
    ):
        parser.add_argument(f"--{name}", type=kind, required=True, help=text)


def params(args):
    """The flags (dict) that shape the trained weights: for the manifest and the work key."""
    return {key: value for key, value in sorted(vars(args).items()) if key not in PATHS + PACE}


def work_key(args, script, inputs, own_files=()):
    """Hexadecimal name (str) of this training: equal if and only if checkpoints and results are as well.

    script: path of the script, whose code and imports count, comments aside; inputs: paths of data files and
    model directories, whose contents count; own_files: the user's code, which counts as the script's does.
    The keys of PACE do not count, nor devices and how they share the work: after running out of memory, a
    training goes on from its checkpoint with fewer rows per device, or on more devices. What a checkpoint
    then cannot be taken over by is refused (sharding.check_written, and online_trainers.py between two steps
    on the same completions).
    """
    contents = {
        "params": params(args),
        "inputs": [manifest.contents(path) for path in inputs],
        "code": [imports.code_hash(path) for path in (script, *own_files)],
        "packages": manifest.packages(manifest.PACKAGES),
    }
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:32]


def parents(args, inputs):
    """Paths of what the trained model was made from: its start's manifest, where it has one, and the data."""
    start = manifest.path_of(args.model)
    return [str(path) for path in (start, *inputs) if Path(path).is_file()]


def accumulation(global_batch_size, per_device, world_size):
    """(rows in a batch, batches per optimizer step) on each device: the fewest batches that fit.

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


def world_size():
    """Number of processes that train together, as the launcher (torchrun, accelerate) says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main():
    """Whether this process is the one that writes."""
    return os.environ.get("RANK", "0") == "0"


def arguments(args, cls=None, **overrides):
    """The transformers.TrainingArguments, or an instance of its subclass `cls`, that the flags ask for.

    Every step is logged to the trainer's state: each loss is looked at for NaN, and log.csv comes out the
    same if the training was interrupted.
    """
    quiet()
    early_stopping.check(vars(args))
    trackers.check(args.wandb_project)
    import torch
    from transformers import TrainingArguments

    rows, batches = accumulation(args.global_batch_size, args.per_device_train_batch_size, world_size())
    made = (cls or TrainingArguments)(
        **{
            "output_dir": args.work_dir,
            "learning_rate": args.learning_rate,
            "lr_scheduler_type": args.lr_scheduler_type,
            # Below 1, `warmup_steps` is a ratio; 1 would be a single step.
            "warmup_steps": min(args.warmup_ratio, 1 - 1e-9),
            "num_train_epochs": args.num_train_epochs,
            "per_device_train_batch_size": rows,
            "per_device_eval_batch_size": rows,
            "gradient_accumulation_steps": batches,
            "weight_decay": args.weight_decay,
            "adam_beta1": args.adam_beta1,
            "adam_beta2": args.adam_beta2,
            "adam_epsilon": args.adam_epsilon,
            "optim": args.optim,
            "max_grad_norm": args.max_grad_norm,
            "bf16": args.dtype == "bfloat16",
            "gradient_checkpointing": args.gradient_checkpointing,
            "ddp_find_unused_parameters": False,
            "seed": _library_seed(args.seed, "training"),
            "data_seed": _library_seed(args.seed, "data order"),
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "include_num_input_tokens_seen": "non_padding",
            "save_strategy": "steps",
            "save_steps": args.save_steps,
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
    if world_size() == 1:
        # A process that sees several GPUs would share the batch among them: the launcher starts one for each.
        made._n_gpu = min(made.n_gpu, 1)
    return made


def load_model(args, cls, **overrides):
    """The model to train: `args.model`'s weights in a `cls` (AutoModelForCausalLM, say), adapters added.

    Parameters are float32 (frozen ones beside adapters: args.dtype, or quantized). A directory without
    weights gives fresh ones, drawn from args.seed. overrides: settings of the configuration, such as
    num_labels.
    """
    quiet()
    import torch
    from transformers import AutoConfig, GenerationConfig, set_seed

    set_seed(_library_seed(args.seed, "initial weights"))
    dtype = "float32" if args.peft is None else args.dtype
    quantization = (args.peft or {}).get("quantization")
    sharding.check(quantization, args.optim)
    models.check_attention(args.attn_implementation, args.dtype)
    overrides["attn_implementation"] = args.attn_implementation
    if quantization or any(Path(args.model).glob("*.safetensors")):
        model = adapters.load_frozen(args.model, cls, dtype, quantization, **overrides)
    else:
        config = AutoConfig.from_pretrained(args.model, trust_remote_code=False, **overrides)
        model = cls.from_config(config, dtype=getattr(torch, dtype), trust_remote_code=False)
    if model.can_generate():
        # The library reads many a published generation config that it then refuses to save in checkpoints.
        model.generation_config = GenerationConfig.from_model_config(model.config)
        # Some configs say no, of models that a trainer of transformers has written.
        model.generation_config.use_cache = True
    if args.peft is None:
        return model
    set_seed(_library_seed(args.seed, "initial adapters"))
    model = adapters.put_on(model, args.peft)
    if args.gradient_checkpointing:
        model.enable_input_require_grads()
    return model


def fit(trainer, args, key, rows, evaluate):
    """Train, from the last complete checkpoint if there is one; return what is to know of it.

    trainer: transformers.Trainer (or a subclass) with the TrainingArguments of `arguments`; key: str from
    `work_key`; rows: list of str, a name for each row of trainer.train_dataset, used when a loss goes wrong;
    evaluate: function without arguments that gives means over the held-out data, a dict of float with `loss`.
    Every args.eval_steps steps, and after the last, these become columns eval_* of args.log_csv; they decide
    which weights the trainer's model has in the end (args.checkpoint) and whether it is stopped early.
    Whatever the trainer logs for each step (`Trainer.log`) becomes a column of args.log_csv.

    Returns {"train_loss": mean over all steps, "train_steps", "train_tokens", "train_runtime": seconds of the
    steps that counted, "train_tokens_per_second", "train_mfu" (utilization.py), "peak_memory_mb", on a GPU
    also "peak_gpu_memory_mb"}; with args.eval_steps also "best_eval_loss", "best_step", "saved_step" and
    "stopped_early".
    On SIGTERM it writes a checkpoint and exits with status 143. Raises InputError that names the step and its
    rows if a loss or a gradient is no longer finite, and OSError where a checkpoint cannot be written; the
    last good checkpoint stays.
    """
    from prefline.training import checkpoints

    sharding.prepare(trainer)
    return checkpoints.fit(trainer, args, key, rows, evaluate)


def held_out(trainer, measure):
    """Sums (float64 tensor) of what `measure(model, batch)` returns over the batches of trainer.eval_dataset.

    Trainer.evaluate averages the batches' averages instead: its results depend on batch size and devices.
    """
    import torch

    trainer.model.to(trainer.args.device).eval()
    rows = range(int(os.environ.get("RANK", "0")), len(trainer.eval_dataset), world_size())
    size = trainer.args.per_device_eval_batch_size
    totals = 0
    for start in range(0, -(-len(trainer.eval_dataset) // world_size()), size):
        # Where weights are gathered from all processes, all take part in every batch, with rows or without.
        own = rows[start : start + size]
        batch = trainer.data_collator([trainer.eval_dataset[row] for row in own or [0]])
        batch = {name: tensor.to(trainer.args.device) for name, tensor in batch.items()}
        with torch.no_grad(), trainer.compute_loss_context_manager(), sharding.as_it_is(trainer):
            sums = measure(trainer.model, batch).cpu().double()
        totals = totals + sums * bool(own)
    return trainer.accelerator.reduce(totals.to(trainer.args.device)).cpu() if world_size() > 1 else totals


def mean_token_loss(trainer):
    """Mean loss (float, nats per token) over all labelled tokens of trainer.eval_dataset."""
    import torch

    def measure(model, batch):
        tokens = (batch["labels"][:, 1:] != -100).sum()
        return torch.stack([model(**batch).loss.float() * tokens, tokens.float()])

    loss, tokens = held_out(trainer, measure).tolist()
    return loss / tokens


def save(model, args, rule, parents, sequences):
    """Write what was trained to args.out, whole or not at all, then its manifest to args.manifest.

    That is the model; with adapters, it is the adapters alone, with the first of `sequences`, list of (prompt
    ids, completion ids) that were held out, for scripts/models/merge_adapter.py. rule and parents: see
    manifest.write.
    """
    whole = sharding.gathered(model)
    if not is_main():
        return
    with files.atomic_directory(args.out) as directory:
        if args.peft is not None:
            adapters.save(model, directory, args.dtype, args.peft, sequences, whole)
        else:
            models.save(model, args.model, args.dtype, directory, whole)
    manifest.write(args.manifest, args.out, rule, params(args), parents)


def restore(args, key, rule, parents):
    """Whether the results of this very training were kept: then they stand in their places when this returns.

    The manifest is written anew, as a training would. rule and parents: see manifest.write.
    """
    folder = Path(args.work_dir) / key
    hashes = cache.whole(folder)
    if hashes is None:
        return False
    if is_main():
        cache.restore(folder, args.out, _others(args))
        model = {name.removeprefix("model/"): value for name, value in hashes.items() if "/" in name}
        manifest.write(args.manifest, args.out, rule, params(args), parents, model)
        print(f"nothing to train: this very training was done before, and {folder} kept its results")
    return True


def keep(args, key):
    """Keep the results of a training, all of them written, and delete its checkpoints."""
    if not is_main():
        return
    folder = Path(args.work_dir) / key
    cache.keep(folder, args.out, _others(args))
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def _others(args):
    return {"metrics.json": args.metrics, "log.csv": args.log_csv}


def quiet():
    """Silence progress bars, advice and telemetry of the libraries: a log is read by people."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def log_steps(steps):
    """Optimizer steps (int) that a row of log.csv stands for, in a training of `steps`."""
    return -(-steps // LOG_ROWS)


def write_log(path, history):
    """Write log.csv: one row for every `log_steps` optimizer steps, and one for what is left over.

    history: list of dicts, one for each step, with `step` and numbers. A row holds the last step, epoch,
    learning rate, token count and evaluation (eval_*) of its steps, and the means of everything else.
    """
    window_steps = log_steps(len(history))
    last = ("step", "epoch", "learning_rate", "num_input_tokens_seen")
    names = [name for name in last if any(name in step for step in history)]
    names += sorted({name for step in history for name in step} - set(names))
    lines = [",".join(names)]
    for start in range(0, len(history), window_steps):
        window = history[start : start + window_steps]
        values = []
        for name in names:
            numbers = [step[name] for step in window if name in step]
            if not numbers:
                values.append("")
            elif name in last or name.startswith("eval_"):
                values.append(f"{numbers[-1]:.10g}")
            else:
                values.append(f"{math.fsum(numbers) / len(numbers):.6g}")
        lines.append(",".join(values))
    files.write_text(path, "\n".join(lines) + "\n")


def _library_seed(seed, purpose):
    """A seed that NumPy takes, too: below 2³²."""
    return seeds.derive(seed, purpose) % 2**32

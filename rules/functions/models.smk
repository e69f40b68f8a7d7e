# What the trainings of all models are given, and what those read that are no policies of a run.

# What a training is given by profiles and --set-resources, and the flags of these, as ENGINE is of engines; then
# where its results go.
TRAINING = {"gpu": 1, "nodes": 1, "gradient_checkpointing": "false", "parallel": "ddp", "wandb_project": ""}
TRAINING_FLAGS = r"""--per-device-train-batch-size {resources.per_device_train_batch_size:q} \
            --gradient-checkpointing {resources.gradient_checkpointing:q} \
            --save-steps {resources.save_steps:q} \
            --wandb-project={resources.wandb_project:q} \
            --out {output.model:q} \
            --manifest {output.manifest:q} \
            --metrics {output.metrics:q} \
            --log-csv {output.log_csv:q}
"""

# The models, policies of runs aside, that the start policy and the rewards are or come of.
NEEDED = configuration.needed_models(config, [START, *map(endpoints.model_of, REWARDS.values())])
# What has a log.csv.
TRAININGS = [name for name in NEEDED if config["models"][name]["source"] is None] + TRAINED


def peft_of(model):
    """The adapters (config) that a policy or another model is trained with; None without, and for finished ones."""
    if model in TRAINED:
        return configuration.training(config, model.rsplit("-", 1)[0])["peft"]
    section = config["models"][model]
    return section["training"]["peft"] if section["source"] is None else None


def trained_here(model):
    """The name of a model that is trained here, as a pattern; one that matches nothing for a finished one."""
    return model if config["models"][model]["source"] is None else "(?!)"


def trained(model):
    """What the training of {model} writes: its directory, or that of adapters, which merge_adapter takes."""
    return f"results/{'adapters' if peft_of(model) else 'models'}/{{model}}"


def source_files(wildcards):
    """The files of a local model directory and a chat template, so that a change of any of them is seen."""
    section = config["models"][wildcards.model]
    return members(section["source"]) + local_files(section.get("chat_template"))


def start_of(wildcards):
    """Inputs of the training of {model}: the model it starts from, and its local data."""
    return {
        "model": ancient(get_start(wildcards)),
        "manifest": f"{get_start(wildcards)}.json",
        "data": ancient(local_files(*data_of(wildcards.model))),
    }


def data_of(model):
    """The data sources of a training."""
    return [config["models"][model][key] for key in ("train_data", "eval_data")]

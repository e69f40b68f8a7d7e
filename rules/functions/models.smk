# Resources of all trainings, and inputs of the trainings of models that are not policies of a run.

# Resources of a training, which rules/machine.smk fits to the machine, and their flags, like ENGINE for engines;
# then the flags of its outputs.
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

# The models that answer or give rewards, and those that these descend from, without policies of runs.
NEEDED = needs.models_with_ancestors(config, needs.used_models(config))
# The models that answer or score; only these must have weights.
ANSWERING = needs.answering_models(config)
# Models with a log.csv.
TRAININGS = [name for name in NEEDED if config["models"][name]["source"] is None] + TRAINED


def peft_of(model):
    """Return the adapters (config) that a model is trained with; None without, and for finished models."""
    if model in TRAINED:
        return configuration.training(config, naming.run_of(model))["peft"]
    section = config["models"][model]
    return section["training"]["peft"] if section["source"] is None else None


def trained_here(model):
    """Return the name of a model that is trained here, as a pattern; a finished one matches nothing."""
    return model if config["models"][model]["source"] is None else "(?!)"


def trained(model):
    """Return the output of the training of {model}: its directory, or its adapters' for merge_adapter."""
    return f"results/{'adapters' if peft_of(model) else 'models'}/{{model}}"


def source_files(wildcards):
    """Return the files of a local model directory and a chat template, so that Snakemake detects their changes."""
    section = config["models"][wildcards.model]
    return members(section["source"]) + local_files(section.get("chat_template"))


def date_of(model):
    """Return the config's date for a finished model whose chat template may write one, None for others."""
    section = config["models"][model]
    from_hub = not local_files(section["source"])
    local = local_files(section["source"], section.get("chat_template"))
    return config["date"] if from_hub or has_clock(*local) else None


def start_of(wildcards):
    """Return inputs of the training of {model}: the model it starts from, and its local data."""
    return {
        "model": ancient(get_start(wildcards)),
        "manifest": f"{get_start(wildcards)}.json",
        "checked": f"results/checks/data/{wildcards.model}.json",
        "model_checked": check_of_model(wildcards.model),
        "data": ancient(data_files(*data_of(wildcards.model))),
    }


def data_of(model):
    """Return the data sources of a training."""
    return [config["models"][model][key] for key in ("train_data", "eval_data")]

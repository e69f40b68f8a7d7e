# Training of the models that are not policies of a run, each from the model that its `init` names.
#
#     results/models/{init}/, data -> results/models/{model}/ and .json, results/training/{model}/metrics.json and log.csv
#  of  models, training_defaults, seed
#
# With `peft`, results/adapters/{model}/ and .json instead, for merge_adapter.


rule pretrain:
    """Train the base model on raw text."""
    input:
        unpack(start_of),
    output:
        model=directory(trained("base")),
        manifest=f"{trained('base')}.json",
        metrics="results/training/{model}/metrics.json",
        log_csv="results/training/{model}/log.csv",
    log:
        "logs/pretrain/{model}.txt",
    benchmark:
        "logs/pretrain/{model}.tsv"
    wildcard_constraints:
        model=trained_here("base"),
    conda:
        "../envs/cpu/train.yaml"
    threads: 2
    resources:
        **TRAINING,
        mem_mb=per_attempt(3_000),
        runtime=1440,
        per_device_train_batch_size=8,
        save_steps=500,
    params:
        code=code_of("pretrain"),
        contents=lambda wildcards: contents_of(*data_files(*data_of(wildcards.model))),
        settings=lambda wildcards: flags(
            section(f"models.{wildcards.model}", "train_data", "eval_data", "columns", "max_length"),
            section("data"),
            configuration.of_job(section(f"models.{wildcards.model}.training")),
            seed=config["seed"],
        ),
        script="pretrain",
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} \
            python -m prefline.machine.launch {resources.parallel:q} scripts.models.{params.script} \
            --model {input.model:q} \
            {params.settings} \
            --work-dir work/{params.script} \
            """ + (TRAINING_FLAGS)


use rule pretrain as train_sft with:
    output:
        model=directory(trained("sft")),
        manifest=f"{trained('sft')}.json",
        metrics="results/training/{model}/metrics.json",
        log_csv="results/training/{model}/log.csv",
    log:
        "logs/train_sft/{model}.txt",
    benchmark:
        "logs/train_sft/{model}.tsv"
    wildcard_constraints:
        model=trained_here("sft"),
    resources:
        **TRAINING,
        mem_mb=per_attempt(3_000),
        runtime=1440,
        per_device_train_batch_size=16,
        save_steps=200,
    params:
        code=code_of("train_sft"),
        script="train_sft",


use rule pretrain as train_reward_model with:
    output:
        model=directory(trained("reward_model")),
        manifest=f"{trained('reward_model')}.json",
        metrics="results/training/{model}/metrics.json",
        log_csv="results/training/{model}/log.csv",
    log:
        "logs/train_reward_model/{model}.txt",
    benchmark:
        "logs/train_reward_model/{model}.tsv"
    wildcard_constraints:
        model=trained_here("reward_model"),
    threads: 1  # trains beside sft
    resources:
        **TRAINING,
        mem_mb=per_attempt(3_000),
        runtime=1440,
        per_device_train_batch_size=32,
        save_steps=100,
    params:
        code=code_of("train_reward_model"),
        script="train_reward_model",

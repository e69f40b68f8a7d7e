# models.* -> results/models/{model}/, results/models/{model}.json, results/training/{model}/
#
# Every model that is not a policy of a run: finished ones are fetched (from a directory or the hub), the
# others are trained from the model that their `init` names; with `peft`, to results/adapters/{model}/.
# Training resumes from its checkpoints in work/.

FETCHED = [name for name, model in config["models"].items() if model["source"] is not None]


rule fetch_model:
    """Take the finished model that the config names as the source of {wildcards.model}."""
    input:
        source=ancient(source_files),
    output:
        model=directory("results/models/{model}"),
        manifest="results/models/{model}.json",
    log:
        "logs/fetch_model/{model}.txt",
    benchmark:
        "logs/fetch_model/{model}.tsv"
    wildcard_constraints:
        model="|".join(FETCHED) or "(?!)",
    priority: 50  # a model that cannot serve is found before others work
    conda:
        "../envs/cpu/score.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=120,
    params:
        code=code_of("fetch_model"),
        contents=lambda wildcards: contents_of(*source_files(wildcards)),
        settings=lambda wildcards: flags(
            source=config["models"][wildcards.model]["source"],
            chat_template=config["models"][wildcards.model].get("chat_template"),
            remote_code=config["models"][wildcards.model].get("remote_code", False),
            pickled_weights=config["models"][wildcards.model].get("pickled_weights", False),
            rewards=rewards_of_model(wildcards.model),
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.models.fetch_model \
            {params.settings} \
            --out {output.model:q} \
            --manifest {output.manifest:q}
        """


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
        gpu=1,
        nodes=1,
        mem_mb=per_attempt(3_000),
        runtime=1440,
        per_device_train_batch_size=8,
        gradient_checkpointing="false",
        parallel="ddp",
        save_steps=500,
        wandb_project="",
    params:
        code=code_of("pretrain"),
        contents=lambda wildcards: contents_of(*data_of(wildcards.model)),
        settings=settings_of,
        script="pretrain",
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} \
            python -m prefline.machine.launch {resources.parallel:q} scripts.models.{params.script} \
            --model {input.model:q} \
            {params.settings} \
            --per-device-train-batch-size {resources.per_device_train_batch_size:q} \
            --gradient-checkpointing {resources.gradient_checkpointing:q} \
            --save-steps {resources.save_steps:q} \
            --wandb-project={resources.wandb_project:q} \
            --work-dir work/{params.script} \
            --out {output.model:q} \
            --manifest {output.manifest:q} \
            --metrics {output.metrics:q} \
            --log-csv {output.log_csv:q}
        """


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
        gpu=1,
        nodes=1,
        mem_mb=per_attempt(3_000),
        runtime=1440,
        per_device_train_batch_size=16,
        gradient_checkpointing="false",
        parallel="ddp",
        save_steps=200,
        wandb_project="",
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
        gpu=1,
        nodes=1,
        mem_mb=per_attempt(3_000),
        runtime=1440,
        per_device_train_batch_size=32,
        gradient_checkpointing="false",
        parallel="ddp",
        save_steps=100,
        wandb_project="",
    params:
        code=code_of("train_reward_model"),
        script="train_reward_model",

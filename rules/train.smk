# Training of a run's policies: iteration t makes {run}-{t} from the pairs of the run's policies before it.
#
#     results/samples/{policy}/tokenized.parquet, results/samples/{policy}/ref_logps/{reference}/*.parquet
#  -> results/models/{run}-{t}/ and .json, results/training/{run}-{t}/metrics.json and log.csv


rule train_policy:
    """Train a policy from preference pairs, from where the run's `init` says."""
    input:
        tokenized=get_tokenized,
        ref_logps=get_ref_logps,
        reference=lambda wildcards: f"results/models/{initial_or_previous(wildcards, 'reference')}.json",
        scale_by=get_scale_by,
        model=ancient(get_init),
        manifest=lambda wildcards: f"{get_init(wildcards)}.json",
    output:
        model=directory("results/models/{run}-{iteration}"),
        manifest="results/models/{run}-{iteration}.json",
        metrics="results/training/{run}-{iteration}/metrics.json",
        log_csv="results/training/{run}-{iteration}/log.csv",
    log:
        "logs/{run}-{iteration}/train_policy.txt",
    benchmark:
        "benchmarks/{run}-{iteration}/train_policy.tsv"
    conda:
        "../envs/cpu/train.yaml"
    threads: 1
    resources:
        gpu=1,
        nodes=1,
        mem_mb=per_attempt(3_000),
        runtime=720,
        per_device_train_batch_size=16,
        gradient_checkpointing="false",
        save_steps=50,
        wandb_project="",
    params:
        code=code_of("train_policy"),
        settings=lambda wildcards: flags(
            {"temperature": config["logps"]["temperature"]},
            configuration.training(config, wildcards.run),
            seed=config["seed"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.lease_gpus {resources.gpu:q} python -m scripts.launch scripts.train_policy \
            --tokenized {input.tokenized:q} \
            --ref-logps {input.ref_logps:q} \
            --reference {input.reference:q} \
            --scale-by {input.scale_by:q} \
            --model {input.model:q} \
            {params.settings} \
            --per-device-train-batch-size {resources.per_device_train_batch_size:q} \
            --gradient-checkpointing {resources.gradient_checkpointing:q} \
            --save-steps {resources.save_steps:q} \
            --wandb-project={resources.wandb_project:q} \
            --work-dir work/train_policy \
            --out {output.model:q} \
            --manifest {output.manifest:q} \
            --metrics {output.metrics:q} \
            --log-csv {output.log_csv:q}
        """

# Training of a run's policies: iteration t makes {run}-{t} from the pairs of the run's policies before it.
#
#     results/samples/{policy}/tokenized.parquet, results/samples/{policy}/ref_logps/{reference}/*.parquet
#  -> results/models/{run}-{t}/ and .json, results/training/{run}-{t}/metrics.json and log.csv
#  of  train, runs, training_defaults, logps.temperature, seed
#
# With `seeds`, {run} is RUN-sSEED here and in all rules (prefline/policies.py).
#
# With `peft`, results/adapters/{run}-{t}/ and .json instead, for merge_adapter. Methods that sample during
# training: train_online.smk. Plots of trainings: train_plots.smk.


rule train_policy:
    """Train a policy from preference pairs, starting from the run's `init`."""
    input:
        tokenized=get_tokenized,
        ref_logps=get_ref_logps,
        reference=lambda wildcards: f"results/models/{initial_or_previous(wildcards, 'reference')}.json",
        scale_by=get_scale_by,
        loss=lambda wildcards: ancient(imports.own_modules(*losses_of(wildcards.run))),
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
        "logs/{run}-{iteration}/train_policy.tsv"
    wildcard_constraints:
        run=runs_of_methods("preference"),
    conda:
        "../envs/cpu/train.yaml"
    resources:
        **TRAINING,
        mem_mb=per_attempt(3_000),
        runtime=720,
        per_device_train_batch_size=16,
        save_steps=50,
    params:
        code=code_of("train_policy"),
        own_code=lambda wildcards: own_code_of(losses_of(wildcards.run)),
        settings=lambda wildcards: flags(
            section("logps", "temperature"),
            configuration.of_job(configuration.training(config, wildcards.run)),
            seed=RUNS[wildcards.run]["seed"],
        ),
        script="train_policy",
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} \
            python -m prefline.machine.launch {resources.parallel:q} scripts.train.{params.script} \
            --tokenized {input.tokenized:q} \
            --ref-logps {input.ref_logps:q} \
            --reference {input.reference:q} \
            --scale-by {input.scale_by:q} \
            --model {input.model:q} \
            {params.settings} \
            --work-dir work/train_policy \
            """ + (TRAINING_FLAGS)


use rule train_policy as train_adapter with:
    output:
        model=directory("results/adapters/{run}-{iteration}"),
        manifest="results/adapters/{run}-{iteration}.json",
        metrics="results/training/{run}-{iteration}/metrics.json",
        log_csv="results/training/{run}-{iteration}/log.csv",
    wildcard_constraints:
        run=runs_of_methods("preference", adapters=True),


rule train_kto:
    """Train a policy from the completions of preference pairs, one by one."""
    input:
        tokenized=get_tokenized,
        model=ancient(get_init),
        manifest=lambda wildcards: f"{get_init(wildcards)}.json",
        reference=ancient(get_reference),
        reference_manifest=lambda wildcards: f"{get_reference(wildcards)}.json",
    output:
        model=directory("results/models/{run}-{iteration}"),
        manifest="results/models/{run}-{iteration}.json",
        metrics="results/training/{run}-{iteration}/metrics.json",
        log_csv="results/training/{run}-{iteration}/log.csv",
    log:
        "logs/{run}-{iteration}/train_kto.txt",
    benchmark:
        "logs/{run}-{iteration}/train_kto.tsv"
    wildcard_constraints:
        run=runs_of_methods("kto"),
    conda:
        "../envs/cpu/train.yaml"
    resources:
        **TRAINING,
        mem_mb=per_attempt(3_000),
        runtime=720,
        per_device_train_batch_size=64,
        save_steps=50,
    params:
        code=code_of("train_kto"),
        settings=lambda wildcards: flags(
            configuration.of_job(configuration.training(config, wildcards.run)),
            seed=RUNS[wildcards.run]["seed"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} \
            python -m prefline.machine.launch {resources.parallel:q} scripts.train.train_kto \
            --tokenized {input.tokenized:q} \
            --model {input.model:q} \
            --reference {input.reference:q} \
            {params.settings} \
            --work-dir work/train_kto \
            """ + (TRAINING_FLAGS)


use rule train_kto as train_kto_adapter with:
    output:
        model=directory("results/adapters/{run}-{iteration}"),
        manifest="results/adapters/{run}-{iteration}.json",
        metrics="results/training/{run}-{iteration}/metrics.json",
        log_csv="results/training/{run}-{iteration}/log.csv",
    wildcard_constraints:
        run=runs_of_methods("kto", adapters=True),

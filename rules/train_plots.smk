# Plots of each training, and of reward against KL from the start policy. No policy depends on them.
#
#     results/training/{trained}/log.csv, metrics.json -> results/training/{trained}/training.png
#     results/models/{run}-{t}/, results/samples/{run}-{t}/completions/test-*.parquet
#  -> results/training/{run}-{t}/drift.json
#     results/training/*/drift.json, results/winrate.json -> results/drift.png
#  of  generate.temperature, logps.dtype, train.attn_implementation


rule plot_training:
    """Draw the course of a training."""
    input:
        log_csv="results/training/{trained}/log.csv",
        metrics="results/training/{trained}/metrics.json",
    output:
        picture="results/training/{trained}/training.png",
    log:
        "logs/{trained}/plot_training.txt",
    benchmark:
        "logs/{trained}/plot_training.tsv"
    wildcard_constraints:
        trained="|".join(TRAININGS) or "(?!)",
    conda:
        "../envs/cpu/report.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("plot_training"),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.train.plot_training \
            --name {wildcards.trained:q} \
            --log-csv {input.log_csv:q} \
            --metrics {input.metrics:q} \
            --out {output.picture:q}
        """


rule measure_drift:
    """Measure a policy's divergence from the start policy and its reference, on its own samples."""
    input:
        prompts=expand("results/samples/{{run}}-{{iteration}}/prompts/{shard}.parquet", shard=shards("test")),
        completions=expand(
            "results/samples/{{run}}-{{iteration}}/completions/{shard}.parquet", shard=shards("test")
        ),
        start_completions=expand(
            f"results/samples/{START}/completions/{{shard}}.parquet", shard=shards("test")
        ),
        rewards=expand(
            "results/samples/{{run}}-{{iteration}}/rewards/{reward}/{shard}.parquet",
            reward=CHEAP,
            shard=shards("test"),
        ),
        start_rewards=expand(
            f"results/samples/{START}/rewards/{{reward}}/{{shard}}.parquet",
            reward=CHEAP,
            shard=shards("test"),
        ),
        metrics="results/training/{run}-{iteration}/metrics.json",
        model=ancient("results/models/{run}-{iteration}"),
        references=ancient(get_references),
        manifests=lambda wildcards: [f"{path}.json" for path in get_references(wildcards)],
    output:
        drift="results/training/{run}-{iteration}/drift.json",
    log:
        "logs/{run}-{iteration}/measure_drift.txt",
    benchmark:
        "logs/{run}-{iteration}/measure_drift.tsv"
    conda:
        "../envs/cpu/score.yaml"
    resources:
        gpu=1,
        nodes=1,
        mem_mb=per_attempt(3_000),
        runtime=240,
        batch_tokens=16384,
    params:
        code=code_of("measure_drift"),
        settings=lambda wildcards: flags(
            section("generate", "temperature"),
            section("logps", "dtype"),
            section("train", "attn_implementation"),
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.train.measure_drift \
            --model {input.model:q} \
            --references {input.references:q} \
            --prompts {input.prompts:q} \
            --completions {input.completions:q} \
            --start-completions {input.start_completions:q} \
            --rewards {input.rewards:q} \
            --start-rewards {input.start_rewards:q} \
            --metrics {input.metrics:q} \
            {params.settings} \
            --batch-tokens {resources.batch_tokens:q} \
            --out {output.drift:q}
        """


rule plot_drift:
    """Draw what policies got for going away from the start policy."""
    input:
        drift=expand("results/training/{policy}/drift.json", policy=TRAINED),
        winrate=f"{FINAL}/winrate.json",
    output:
        picture=f"{FINAL}/drift.png",
    log:
        "logs/plot_drift.txt",
    benchmark:
        "logs/plot_drift.tsv"
    conda:
        "../envs/cpu/report.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("plot_drift"),
        policies=TRAINED,
        start=START,
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.train.plot_drift \
            --policies {params.policies:q} \
            --drift {input.drift:q} \
            --start {params.start:q} \
            --winrate {input.winrate:q} \
            --out {output.picture:q}
        """

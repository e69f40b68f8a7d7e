# results/samples/{policy}/completions/{shard}.parquet -> results/samples/{policy}/rewards/{shard}.parquet
# all shards of a policy                                -> results/samples/{policy}/preferences.parquet


rule score_completions:
    """Score each completion with the reward model."""
    input:
        prompts="results/samples/{policy}/prompts/{shard}.parquet",
        completions="results/samples/{policy}/completions/{shard}.parquet",
        model=ancient("results/models/reward_model"),
        manifest="results/models/reward_model.json",
    output:
        rewards="results/samples/{policy}/rewards/{shard}.parquet",
    log:
        "logs/{policy}/score_completions/{shard}.txt",
    benchmark:
        "benchmarks/{policy}/score_completions/{shard}.tsv"
    conda:
        "../envs/cpu/score.yaml"
    threads: 1
    resources:
        mem_mb=3_000,
        runtime=240,
        batch_tokens=16384,
    params:
        code=code_of("score_completions"),
        settings=lambda wildcards: flags({"dtype": config["rank"]["dtype"]}),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.score_completions \
            --prompts {input.prompts:q} \
            --completions {input.completions:q} \
            --model {input.model:q} \
            --batch-tokens {resources.batch_tokens:q} \
            {params.settings} \
            --journal work/journal \
            --out {output.rewards:q}
        """


rule build_preferences:
    """Pair a better completion of each prompt with a worse one."""
    input:
        prompts=expand("results/samples/{{policy}}/prompts/{shard}.parquet", shard=ALL_SHARDS),
        completions=expand("results/samples/{{policy}}/completions/{shard}.parquet", shard=ALL_SHARDS),
        rewards=expand("results/samples/{{policy}}/rewards/{shard}.parquet", shard=ALL_SHARDS),
    output:
        preferences="results/samples/{policy}/preferences.parquet",
        metrics="results/samples/{policy}/preferences.json",
    log:
        "logs/{policy}/build_preferences.txt",
    benchmark:
        "benchmarks/{policy}/build_preferences.tsv"
    conda:
        "../envs/cpu/data.yaml"
    threads: 1
    resources:
        mem_mb=8_000,
        runtime=60,
    params:
        code=code_of("build_preferences"),
        settings=lambda wildcards: flags(
            pick("generate", "num_completions"),
            pick("rank", "strategy", "length_penalty", "min_margin", "truncated"),
            seed=config["seed"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.build_preferences \
            --prompts {input.prompts:q} \
            --completions {input.completions:q} \
            --rewards {input.rewards:q} \
            {params.settings} \
            --out {output.preferences:q} \
            --metrics {output.metrics:q}
        """

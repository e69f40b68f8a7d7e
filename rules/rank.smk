# results/samples/{policy}/completions/{shard}.parquet -> results/samples/{policy}/rewards/{shard}.parquet
# all shards of a policy                                -> results/samples/{policy}/preferences.parquet


rule score_completions:
    """Score each completion with the reward model."""
    input:
        code=sources("score_completions"),
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
    params:
        batch_tokens=config["rank"]["batch_tokens"],
        dtype=config["rank"]["dtype"],
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.score_completions \
            --prompts {input.prompts:q} \
            --completions {input.completions:q} \
            --model {input.model:q} \
            --batch-tokens {params.batch_tokens:q} \
            --dtype {params.dtype:q} \
            --out {output.rewards:q}
        """


rule build_preferences:
    """Pair a better completion of each prompt with a worse one."""
    input:
        code=sources("build_preferences"),
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
        num_completions=config["generate"]["num_completions"],
        strategy=config["rank"]["strategy"],
        length_penalty=config["rank"]["length_penalty"],
        min_margin=config["rank"]["min_margin"],
        truncated=config["rank"]["truncated"],
        seed=config["seed"],
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.build_preferences \
            --prompts {input.prompts:q} \
            --completions {input.completions:q} \
            --rewards {input.rewards:q} \
            --num-completions {params.num_completions:q} \
            --strategy {params.strategy:q} \
            --length-penalty {params.length_penalty:q} \
            --min-margin {params.min_margin:q} \
            --truncated {params.truncated:q} \
            --seed {params.seed:q} \
            --out {output.preferences:q} \
            --metrics {output.metrics:q}
        """

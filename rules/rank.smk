# results/samples/{policy}/rewards/       -> results/samples/{policy}/preferences.{parquet,json}, ranked.parquet
# results/samples/{policy}/ranked.parquet -> results/samples/{policy}/rewards.png


rule build_preferences:
    """Pair a better completion of each prompt with a worse one."""
    input:
        prompts=expand("results/samples/{{policy}}/prompts/{shard}.parquet", shard=ALL_SHARDS),
        completions=expand("results/samples/{{policy}}/completions/{shard}.parquet", shard=ALL_SHARDS),
        rewards=expand(
            "results/samples/{{policy}}/rewards/{reward}/{shard}.parquet", reward=REWARDS, shard=ALL_SHARDS
        ),
    output:
        preferences="results/samples/{policy}/preferences.parquet",
        ranked="results/samples/{policy}/ranked.parquet",
        metrics="results/samples/{policy}/preferences.json",
    log:
        "logs/{policy}/build_preferences.txt",
    benchmark:
        "logs/{policy}/build_preferences.tsv"
    wildcard_constraints:
        policy="|".join(TRAINED if GIVEN_PAIRS else SAMPLED) or "(?!)",  # import_preferences makes the start policy's
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(8_000),
        runtime=60,
    params:
        code=code_of("build_preferences"),
        settings=lambda wildcards: flags(
            section("generate", "num_completions"),
            section("rank"),
            shards=number_of_shards(),
            weighting={
                name: section(f"rewards.{name}", "kind", "weight", "normalize") for name in sorted(REWARDS)
            },
            seed=config["seed"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.rank.build_preferences \
            --samples results/samples/{wildcards.policy:q} \
            {params.settings} \
            --out {output.preferences:q} \
            --ranked {output.ranked:q} \
            --metrics {output.metrics:q}
        """


rule plot_rewards:
    """Draw the rewards of a policy's completions, and how they go with length."""
    input:
        ranked="results/samples/{policy}/ranked.parquet",
        metrics="results/samples/{policy}/preferences.json",
    output:
        picture=report(
            "results/samples/{policy}/rewards.png",
            caption="captions/rewards.rst",
            category="Data",
            labels={"policy": "{policy}"},
        ),
    log:
        "logs/{policy}/plot_rewards.txt",
    benchmark:
        "logs/{policy}/plot_rewards.tsv"
    conda:
        "../envs/cpu/report.yaml"
    resources:
        mem_mb=per_attempt(2_000),
        runtime=30,
    params:
        code=code_of("plot_rewards"),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.rank.plot_rewards \
            --policy {wildcards.policy:q} \
            --ranked {input.ranked:q} \
            --metrics {input.metrics:q} \
            --out {output.picture:q}
        """

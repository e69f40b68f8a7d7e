# results/samples/{policy}/prompts/{shard}.parquet -> results/samples/{policy}/completions/{shard}.parquet


rule generate_completions:
    """Sample completions for a shard of prompts from a policy."""
    input:
        prompts="results/samples/{policy}/prompts/{shard}.parquet",
        model=ancient("results/models/{policy}"),
        manifest="results/models/{policy}.json",
    output:
        completions="results/samples/{policy}/completions/{shard}.parquet",
    log:
        "logs/{policy}/generate_completions/{shard}.txt",
    benchmark:
        "benchmarks/{policy}/generate_completions/{shard}.tsv"
    conda:
        "../envs/generate.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=240,
        batch_size=256,
    params:
        code=code_of("generate_completions"),
        settings=lambda wildcards: flags(config["generate"], seed=config["seed"]),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.generate_completions \
            --prompts {input.prompts:q} \
            --model {input.model:q} \
            {params.settings} \
            --batch-size {resources.batch_size:q} \
            --out {output.completions:q}
        """


for policy in POLICIES:

    # A name for all shards of a policy: `snakemake generate_sft`.
    rule:
        name:
            f"generate_{policy}".replace("-", "_")
        input:
            expand(f"results/samples/{policy}/completions/{{shard}}.parquet", shard=ALL_SHARDS),

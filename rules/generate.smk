# results/samples/{policy}/prompts/{shard}.parquet
#  -> results/samples/{policy}/completions/{shard}.parquet, results/samples/{policy}/generation/{shard}.json


rule generate_completions:
    """Sample completions for a shard of prompts from a policy."""
    input:
        prompts="results/samples/{policy}/prompts/{shard}.parquet",
        model=ancient("results/models/{policy}"),
        manifest="results/models/{policy}.json",
    output:
        completions="results/samples/{policy}/completions/{shard}.parquet",
        metrics="results/samples/{policy}/generation/{shard}.json",
    log:
        "logs/{policy}/generate_completions/{shard}.txt",
    benchmark:
        "logs/{policy}/generate_completions/{shard}.tsv"
    conda:
        "../envs/cpu/generate.yaml"
    resources:
        **ENGINE,
        runtime=240,
    params:
        code=code_of("generate_completions"),
        settings=lambda wildcards: flags(
            engine_settings(),
            section("generate", "num_completions", "temperature", "top_p", "top_k", "max_tokens"),
            section("prompts", "max_prompt_length"),
            seed=config["seed"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.generate.generate_completions \
            --prompts {input.prompts:q} \
            --model {input.model:q} \
            {params.settings} \
            --journal work/journal \
            --out {output.completions:q} \
            --metrics {output.metrics:q} \
            """ + (ENGINE_FLAGS)


for policy in SAMPLED:

    # A name for all shards that are needed of a policy: `snakemake generate_sft`.
    rule:
        name:
            f"generate_{policy}".replace("-", "_")
        input:
            expand(
                f"results/samples/{policy}/completions/{{shard}}.parquet",
                shard=shards_of(policy, "completions"),
            ),

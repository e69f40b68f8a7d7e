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
    threads: 1
    resources:
        gpu=engine_gpus(),
        nodes=1,
        mem_mb=per_attempt(3000),
        runtime=240,
        batch_size=256,
        tensor_parallel_size=1,
        gpu_memory_percent=90,
        max_num_batched_tokens=0,
        servers=config["generate"]["servers"] or "",
        server_timeout=600,
    params:
        code=code_of("generate_completions"),
        settings=lambda wildcards: flags(
            engine_settings(),
            section("generate", "num_completions", "temperature", "top_p", "top_k", "max_tokens"),
            seed=config["seed"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.generate.generate_completions \
            --prompts {input.prompts:q} \
            --model {input.model:q} \
            {params.settings} \
            --batch-size {resources.batch_size:q} \
            --tensor-parallel-size {resources.tensor_parallel_size:q} \
            --gpu-memory-percent {resources.gpu_memory_percent:q} \
            --max-num-batched-tokens {resources.max_num_batched_tokens:q} \
            --servers={resources.servers:q} \
            --server-timeout {resources.server_timeout:q} \
            --journal work/journal \
            --out {output.completions:q} \
            --metrics {output.metrics:q}
        """


for policy in POLICIES:

    # A name for all shards that are needed of a policy: `snakemake generate_sft`.
    rule:
        name:
            f"generate_{policy}".replace("-", "_")
        input:
            expand(
                f"results/samples/{policy}/completions/{{shard}}.parquet",
                shard=shards_of(policy, "completions"),
            ),

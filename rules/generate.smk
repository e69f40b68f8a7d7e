# results/samples/{policy}/prompts/{shard}.parquet -> results/samples/{policy}/completions/{shard}.parquet


rule generate_completions:
    """Sample completions for a shard of prompts from a policy."""
    input:
        code=sources("generate_completions"),
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
        "../envs/cpu/generate.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=240,
    params:
        engine=config["generate"]["engine"],
        num_completions=config["generate"]["num_completions"],
        temperature=config["generate"]["temperature"],
        top_p=config["generate"]["top_p"],
        top_k=config["generate"]["top_k"],
        max_tokens=config["generate"]["max_tokens"],
        batch_size=config["generate"]["batch_size"],
        dtype=config["generate"]["dtype"],
        seed=config["seed"],
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.generate_completions \
            --prompts {input.prompts:q} \
            --model {input.model:q} \
            --engine {params.engine:q} \
            --num-completions {params.num_completions:q} \
            --temperature {params.temperature:q} \
            --top-p {params.top_p:q} \
            --top-k {params.top_k:q} \
            --max-tokens {params.max_tokens:q} \
            --batch-size {params.batch_size:q} \
            --dtype {params.dtype:q} \
            --seed {params.seed:q} \
            --out {output.completions:q}
        """

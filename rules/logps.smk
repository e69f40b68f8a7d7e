# Log-probabilities of a policy's pairs under a reference policy, one job per part of the pairs.
#
#     results/samples/{policy}/tokenized.parquet
#  -> results/samples/{policy}/ref_logps/{reference}/{part}.parquet


rule compute_ref_logps:
    """Sum the log-probabilities of chosen and rejected completions under the reference policy."""
    input:
        code=sources("compute_ref_logps"),
        tokenized="results/samples/{policy}/tokenized.parquet",
        model=ancient("results/models/{reference}"),
        manifest="results/models/{reference}.json",
    output:
        ref_logps="results/samples/{policy}/ref_logps/{reference}/{part}.parquet",
    log:
        "logs/{policy}/compute_ref_logps/{reference}/{part}.txt",
    benchmark:
        "benchmarks/{policy}/compute_ref_logps/{reference}/{part}.tsv"
    conda:
        "../envs/cpu/score.yaml"
    threads: 1
    resources:
        mem_mb=3_000,
        runtime=240,
    params:
        num_shards=config["logps"]["num_shards"],
        temperature=config["logps"]["temperature"],
        batch_tokens=config["logps"]["batch_tokens"],
        dtype=config["logps"]["dtype"],
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.compute_ref_logps \
            --tokenized {input.tokenized:q} \
            --model {input.model:q} \
            --part {wildcards.part:q} \
            --num-shards {params.num_shards:q} \
            --temperature {params.temperature:q} \
            --batch-tokens {params.batch_tokens:q} \
            --dtype {params.dtype:q} \
            --out {output.ref_logps:q}
        """

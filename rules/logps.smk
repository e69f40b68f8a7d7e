# Log-probabilities of a policy's pairs under a reference policy, one job per part of the pairs.
#
#     results/samples/{policy}/tokenized.parquet
#  -> results/samples/{policy}/ref_logps/{reference}/{part}.parquet

# Policies whose pairs are scored, with the reference that scores them.
PAIRS_AND_REFERENCES = {
    (policy, initial_or_previous(iteration, "reference"))
    for iteration in iterations_of("preference")
    for policy in get_data_policies(iteration)
}


rule compute_ref_logps:
    """Sum the log-probabilities of chosen and rejected completions under the reference policy."""
    input:
        tokenized="results/samples/{policy}/tokenized.parquet",
        model=ancient("results/models/{reference}"),
        manifest="results/models/{reference}.json",
    output:
        ref_logps="results/samples/{policy}/ref_logps/{reference}/{part}.parquet",
    log:
        "logs/{policy}/compute_ref_logps/{reference}/{part}.txt",
    benchmark:
        "logs/{policy}/compute_ref_logps/{reference}/{part}.tsv"
    conda:
        "../envs/cpu/score.yaml"
    resources:
        gpu=1,
        nodes=1,
        mem_mb=per_attempt(3_000),
        runtime=240,
        batch_tokens=16384,
    params:
        code=code_of("compute_ref_logps"),
        settings=lambda wildcards: flags(section("logps"), section("train", "attn_implementation")),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.logps.compute_ref_logps \
            --tokenized {input.tokenized:q} \
            --model {input.model:q} \
            --part {wildcards.part:q} \
            {params.settings} \
            --batch-tokens {resources.batch_tokens:q} \
            --journal work/journal \
            --out {output.ref_logps:q}
        """


for policy, reference in sorted(PAIRS_AND_REFERENCES):

    # A name for all parts: `snakemake logps_sft_sft`.
    rule:
        name:
            f"logps_{policy}_{reference}".replace("-", "_")
        input:
            ref_logps_of(policy, reference),

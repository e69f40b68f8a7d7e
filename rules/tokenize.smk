# results/samples/{policy}/preferences.parquet -> results/samples/{policy}/tokenized.parquet


rule tokenize_preferences:
    """Turn pairs into unpadded token ids and drop those that are too long."""
    input:
        preferences="results/samples/{policy}/preferences.parquet",
        tokenizer=ancient("results/models/sft"),
        manifest="results/models/sft.json",
    output:
        tokenized="results/samples/{policy}/tokenized.parquet",
        metrics="results/samples/{policy}/tokenized.json",
    log:
        "logs/{policy}/tokenize_preferences.txt",
    benchmark:
        "logs/{policy}/tokenize_preferences.tsv"
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(8_000),
        runtime=60,
    params:
        code=code_of("tokenize_preferences"),
        settings=lambda wildcards: flags(section("tokenize"), section("data", "max_dropped")),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.tokenize.tokenize_preferences \
            --preferences {input.preferences:q} \
            --tokenizer {input.tokenizer:q} \
            {params.settings} \
            --out {output.tokenized:q} \
            --metrics {output.metrics:q}
        """

# prompts.source, data -> results/prompts/pool.parquet -> results/samples/{policy}/prompts/{shard}.parquet
# prompts.preferences -> results/samples/sft/preferences.parquet, in place of samples of the start policy

from prefline.data.prompts import shard_range


rule prepare_prompts:
    """Normalize, de-duplicate, decontaminate and split the prompts."""
    input:
        source=ancient(data_files(config["prompts"]["source"])),
        checked="results/checks/data/prompts.json",
        model_checked=check_of_model(START),
        questions=ancient(mt_bench_file("questions")),
        tokenizer=ancient("results/models/sft"),
        manifest="results/models/sft.json",
    output:
        pool="results/prompts/pool.parquet",
        metrics="results/prompts/pool.json",
    log:
        "logs/prepare_prompts.txt",
    benchmark:
        "logs/prepare_prompts.tsv"
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(4000),
        runtime=60,
    params:
        code=code_of("prepare_prompts"),
        contents=contents_of(*data_files(config["prompts"]["source"]), config["mt_bench"]["questions"]),
        settings=lambda wildcards: flags(
            section("prompts", "source", "columns", "system", "test_fraction", "max_prompt_length"),
            section("prompts", "decontamination_ngram"),
            section("data"),
            seed=config["seed"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.prompts.prepare_prompts \
            {params.settings} \
            --tokenizer {input.tokenizer:q} \
            --questions {input.questions:q} \
            --out {output.pool:q} \
            --metrics {output.metrics:q}
        """


rule sample_prompts:
    """Take the prompts of one shard from the pool: fresh training prompts in each iteration."""
    input:
        pool="results/prompts/pool.parquet",
    output:
        prompts="results/samples/{policy}/prompts/{shard}.parquet",
    log:
        "logs/{policy}/sample_prompts/{shard}.txt",
    benchmark:
        "logs/{policy}/sample_prompts/{shard}.tsv"
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(2000),
        runtime=20,
    params:
        code=code_of("sample_prompts"),
        # A shard depends only on its ranks: asking for more prompts runs no full shard again.
        settings=lambda wildcards: flags(
            shard_range(wildcards.shard, iteration(wildcards.policy), config["prompts"])
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.prompts.sample_prompts \
            --pool {input.pool:q} \
            {params.settings} \
            --out {output.prompts:q}
        """


for policy in SAMPLED:

    # A name for all shards that are needed of a policy: `snakemake prompts_sft`.
    rule:
        name:
            f"prompts_{policy}".replace("-", "_")
        input:
            expand(f"results/samples/{policy}/prompts/{{shard}}.parquet", shard=shards_of(policy, "prompts")),


if GIVEN_PAIRS:

    rule import_preferences:
        """Bring an existing preference dataset into the form of the start policy's pairs."""
        input:
            source=ancient(data_files(GIVEN_PAIRS["source"])),
            checked="results/checks/data/preferences.json",
            model_checked=check_of_model(START),
            questions=ancient(mt_bench_file("questions")),
            tokenizer=ancient("results/models/sft"),
            manifest="results/models/sft.json",
        output:
            preferences="results/samples/sft/preferences.parquet",
            metrics="results/samples/sft/preferences.json",
        log:
            "logs/import_preferences.txt",
        benchmark:
            "logs/import_preferences.tsv"
        conda:
            "../envs/cpu/data.yaml"
        resources:
            mem_mb=per_attempt(4000),
            runtime=60,
        params:
            code=code_of("import_preferences"),
            contents=contents_of(*data_files(GIVEN_PAIRS["source"]), config["mt_bench"]["questions"]),
            settings=lambda wildcards: flags(
                section("prompts.preferences", "source", "columns", "num_pairs"),
                section("prompts", "system", "test_fraction", "decontamination_ngram"),
                section("data"),
                unpaired=TAKES_UNPAIRED,
                seed=config["seed"],
            ),
        shell:
            r"""
            exec &> >(tee {log:q})

            exec python -m scripts.prompts.import_preferences \
                {params.settings} \
                --tokenizer {input.tokenizer:q} \
                --questions {input.questions:q} \
                --out {output.preferences:q} \
                --metrics {output.metrics:q}
            """

# prompts.source -> results/prompts/pool.parquet -> results/samples/{policy}/prompts/{shard}.parquet
# prompts.preferences -> results/samples/sft/preferences.parquet, in place of samples of the start policy

from scripts.common.prompts import shard_range


rule prepare_prompts:
    """Normalize, de-duplicate, decontaminate and split the prompts."""
    input:
        code=sources("prepare_prompts"),
        source=local_files(config["prompts"]["source"]),
        questions=config["mt_bench"]["questions"],
        tokenizer=ancient("results/models/sft"),
        manifest="results/models/sft.json",
    output:
        pool="results/prompts/pool.parquet",
        metrics="results/prompts/pool.json",
    log:
        "logs/prepare_prompts.txt",
    benchmark:
        "benchmarks/prepare_prompts.tsv"
    conda:
        "../envs/cpu/data.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        source=lambda wildcards: config["prompts"]["source"],
        columns=json.dumps(config["prompts"]["columns"]),
        system=json.dumps(config["prompts"]["system"]),
        test_fraction=config["prompts"]["test_fraction"],
        max_prompt_length=config["prompts"]["max_prompt_length"],
        decontamination_ngram=config["prompts"]["decontamination_ngram"],
        seed=config["seed"],
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.prepare_prompts \
            --source {params.source:q} \
            --columns {params.columns:q} \
            --system {params.system:q} \
            --tokenizer {input.tokenizer:q} \
            --questions {input.questions:q} \
            --test-fraction {params.test_fraction:q} \
            --max-prompt-length {params.max_prompt_length:q} \
            --decontamination-ngram {params.decontamination_ngram:q} \
            --seed {params.seed:q} \
            --out {output.pool:q} \
            --metrics {output.metrics:q}
        """


rule sample_prompts:
    """Take the prompts of one shard from the pool: fresh training prompts in each iteration."""
    input:
        code=sources("sample_prompts"),
        pool="results/prompts/pool.parquet",
    output:
        prompts="results/samples/{policy}/prompts/{shard}.parquet",
    log:
        "logs/{policy}/sample_prompts/{shard}.txt",
    benchmark:
        "benchmarks/{policy}/sample_prompts/{shard}.tsv"
    conda:
        "../envs/cpu/data.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        # Its ranks are all that a shard depends on: asking for more prompts re-runs no full shard.
        split=lambda wildcards: wildcards.shard.split("-")[0],
        first=lambda w: shard_range(w.shard, iteration(w.policy), config["prompts"])[0],
        number=lambda w: shard_range(w.shard, iteration(w.policy), config["prompts"])[1],
        seed=config["seed"],
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.sample_prompts \
            --pool {input.pool:q} \
            --split {params.split:q} \
            --first {params.first:q} \
            --number {params.number:q} \
            --seed {params.seed:q} \
            --out {output.prompts:q}
        """


if config["prompts"]["preferences"]:

    ruleorder: import_preferences > build_preferences

    rule import_preferences:
        """Bring an existing preference dataset into the form of the start policy's pairs."""
        input:
            code=sources("import_preferences"),
            source=local_files(config["prompts"]["preferences"]["source"]),
            questions=config["mt_bench"]["questions"],
            tokenizer=ancient("results/models/sft"),
            manifest="results/models/sft.json",
        output:
            preferences="results/samples/sft/preferences.parquet",
            metrics="results/samples/sft/preferences.json",
        log:
            "logs/import_preferences.txt",
        benchmark:
            "benchmarks/import_preferences.tsv"
        conda:
            "../envs/cpu/data.yaml"
        threads: 1
        resources:
            mem_mb=4000,
            runtime=60,
        params:
            source=lambda wildcards: config["prompts"]["preferences"]["source"],
            columns=json.dumps(config["prompts"]["preferences"]["columns"]),
            system=json.dumps(config["prompts"]["system"]),
            test_fraction=config["prompts"]["test_fraction"],
            decontamination_ngram=config["prompts"]["decontamination_ngram"],
            seed=config["seed"],
        shell:
            r"""
            exec &> >(tee {log:q})

            exec python -m scripts.import_preferences \
                --source {params.source:q} \
                --columns {params.columns:q} \
                --system {params.system:q} \
                --tokenizer {input.tokenizer:q} \
                --questions {input.questions:q} \
                --test-fraction {params.test_fraction:q} \
                --decontamination-ngram {params.decontamination_ngram:q} \
                --seed {params.seed:q} \
                --out {output.preferences:q} \
                --metrics {output.metrics:q}
            """

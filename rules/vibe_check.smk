# results/models/{policy}    -> results/vibe_check/{policy}.jsonl
# the answers of all policies -> results/vibe_check.md


rule answer_vibe_check:
    """Have a policy answer the prompts of the vibe check."""
    input:
        code=sources("answer_vibe_check"),
        prompts=local_files(config["vibe_check"]["prompts"]),
        model=ancient("results/models/{policy}"),
        manifest="results/models/{policy}.json",
    output:
        answers="results/vibe_check/{policy}.jsonl",
    log:
        "logs/{policy}/answer_vibe_check.txt",
    benchmark:
        "benchmarks/{policy}/answer_vibe_check.tsv"
    conda:
        "../envs/cpu/generate.yaml"
    threads: 1
    resources:
        mem_mb=3_000,
        runtime=60,
    params:
        prompts=lambda wildcards: config["vibe_check"]["prompts"],
        columns=json.dumps(config["vibe_check"]["columns"]),
        engine=config["generate"]["engine"],
        batch_size=config["generate"]["batch_size"],
        dtype=config["generate"]["dtype"],
        temperature=config["vibe_check"]["temperature"],
        max_tokens=config["vibe_check"]["max_tokens"],
        seed=config["seed"],
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.answer_vibe_check \
            --prompts {params.prompts:q} \
            --columns {params.columns:q} \
            --model {input.model:q} \
            --engine {params.engine:q} \
            --batch-size {params.batch_size:q} \
            --dtype {params.dtype:q} \
            --temperature {params.temperature:q} \
            --max-tokens {params.max_tokens:q} \
            --seed {params.seed:q} \
            --out {output.answers:q}
        """


rule write_vibe_check:
    """Write the page with every policy's answers side by side."""
    input:
        code=sources("write_vibe_check"),
        answers=expand("results/vibe_check/{policy}.jsonl", policy=POLICIES),
    output:
        page="results/vibe_check.md",
    log:
        "logs/write_vibe_check.txt",
    benchmark:
        "benchmarks/write_vibe_check.tsv"
    conda:
        "../envs/cpu/report.yaml"
    threads: 1
    resources:
        mem_mb=1_000,
        runtime=30,
    params:
        policies=POLICIES,
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.write_vibe_check \
            --policies {params.policies:q} \
            --answers {input.answers:q} \
            --out {output.page:q}
        """

# results/models/{policy}     -> results/vibe_check/{policy}.jsonl
# the answers of all policies -> results/vibe_check.md
# config: vibe_check, generate, seed


rule answer_vibe_check:
    """Have a policy answer the prompts of the vibe check."""
    input:
        prompts=ancient(data_files(config["vibe_check"]["prompts"])),
        checked="results/checks/data/vibe_check.json",
        model=ancient("results/models/{policy}"),
        manifest="results/models/{policy}.json",
    output:
        answers="results/vibe_check/{policy}.jsonl",
    log:
        "logs/{policy}/answer_vibe_check.txt",
    benchmark:
        "logs/{policy}/answer_vibe_check.tsv"
    conda:
        "../envs/cpu/generate.yaml"
    resources:
        **ENGINE,
        runtime=60,
    params:
        code=code_of("answer_vibe_check"),
        contents=contents_of(*data_files(config["vibe_check"]["prompts"])),
        settings=lambda wildcards: flags(section("vibe_check"), engine_settings(), seed=config["seed"]),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.vibe_check.answer_vibe_check \
            {params.settings} \
            --model {input.model:q} \
            --journal work/journal \
            --out {output.answers:q} \
            """ + (ENGINE_FLAGS)


rule write_vibe_check:
    """Write the page with every policy's answers side by side."""
    input:
        answers=expand("results/vibe_check/{policy}.jsonl", policy=POLICIES),
    output:
        page=f"{FINAL}/vibe_check.md",
    log:
        "logs/write_vibe_check.txt",
    benchmark:
        "logs/write_vibe_check.tsv"
    conda:
        "../envs/cpu/report.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("write_vibe_check"),
        policies=POLICIES,
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.vibe_check.write_vibe_check \
            --policies {params.policies:q} \
            --answers {input.answers:q} \
            --out {output.page:q}
        """

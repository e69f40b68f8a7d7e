# results/models/{policy}, results/winrate.json -> results/cards/{policy}.md
# a policy and its card, at an explicit request -> the hub, results/published/{policy}.json
# config: publish; the card tells of models, prompts, generate, rewards, runs and train

CARD = "scripts/report/card.md.j2"
SHOWN_IN_CARD = ("models", "prompts", "generate", "rewards", "runs", "train", "publish")


rule write_model_card:
    """Write the page that introduces a policy to others."""
    input:
        template=ancient(CARD),
        manifest="results/models/{run}-{iteration}.json",
        metrics="results/training/{run}-{iteration}/metrics.json",
        winrate="results/winrate.json",
        pairs=lambda wildcards: [
            f"results/samples/{policy}/tokenized.json"
            for policy in get_data_policies(wildcards)
            if wildcards.run in RUNS_ON_PAIRS
        ],
    output:
        card="results/cards/{run}-{iteration}.md",
    log:
        "logs/{run}-{iteration}/write_model_card.txt",
    benchmark:
        "logs/{run}-{iteration}/write_model_card.tsv"
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("write_model_card"),
        contents=contents_of(CARD),
        settings=lambda wildcards: flags(config={key: config[key] for key in SHOWN_IN_CARD}),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.report.write_model_card \
            --policy {wildcards.run:q}-{wildcards.iteration:q} \
            --manifest {input.manifest:q} \
            --metrics {input.metrics:q} \
            --winrate {input.winrate:q} \
            --pairs {input.pairs:q} \
            {params.settings} \
            --out {output.card:q}
        """


rule publish:
    """Push a policy to the hub. Nothing else needs this: `snakemake results/published/dpo-1.json`."""
    input:
        model="results/models/{run}-{iteration}",
        manifest="results/models/{run}-{iteration}.json",
        card="results/cards/{run}-{iteration}.md",
        pairs=lambda wildcards: [
            f"results/samples/{policy}/preferences.parquet"
            for policy in get_data_policies(wildcards)
            if config["publish"]["pairs"] and wildcards.run in RUNS_ON_PAIRS
        ],
    output:
        published="results/published/{run}-{iteration}.json",
    log:
        "logs/{run}-{iteration}/publish.txt",
    benchmark:
        "logs/{run}-{iteration}/publish.tsv"
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(2_000),
        runtime=240,
    params:
        code=code_of("publish"),
        settings=lambda wildcards: flags(section("publish", "namespace", "name", "private")),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.publish.publish \
            --policy {wildcards.run:q}-{wildcards.iteration:q} \
            --model {input.model:q} \
            --manifest {input.manifest:q} \
            --card {input.card:q} \
            --pairs {input.pairs:q} \
            {params.settings} \
            --out {output.published:q}
        """

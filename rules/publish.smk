# results/models/{policy}, results/winrate.json -> results/cards/{policy}.md
# a model that runs start from, its training -> results/cards/{model}.md
# pairs -> results/cards/{policy}-pairs.md: publish_pairs.smk
# a model, its adapters, its card, at an explicit request -> the hub, results/published/{model}.json
#
# config: publish; the cards tell of models, prompts, generate, rewards, runs and train


include: "publish_pairs.smk"


TEMPLATES = [f"scripts/publish/{name}.md.j2" for name in ("card", "trained_card", "numbers", "lineage")]
SHOWN_IN_CARD = ("models", "prompts", "generate", "rewards", "runs", "train", "publish")


rule write_model_card:
    """Write the page that introduces a policy to others."""
    input:
        template=ancient(TEMPLATES),
        manifest="results/models/{run}-{iteration}.json",
        trained=lambda wildcards: trained_manifest(f"{wildcards.run}-{wildcards.iteration}"),
        metrics="results/training/{run}-{iteration}/metrics.json",
        winrate=f"{FINAL}/winrate.json",
        pairs=lambda wildcards: [
            f"results/samples/{policy}/tokenized.json"
            for policy in get_data_policies(wildcards)
            if wildcards.run in RUNS_ON_PAIRS
        ],
    output:
        card=f"{FINAL}/cards/{{run}}-{{iteration}}.md",
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
        contents=contents_of(*TEMPLATES),
        settings=lambda wildcards: flags(config={key: config[key] for key in SHOWN_IN_CARD}),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.publish.write_model_card \
            --policy {wildcards.run:q}-{wildcards.iteration:q} \
            --manifest {input.manifest:q} \
            --trained {input.trained:q} \
            --metrics {input.metrics:q} \
            --winrate {input.winrate:q} \
            --pairs {input.pairs:q} \
            {params.settings} \
            --out {output.card:q}
        """


rule write_trained_card:
    """Write the page that introduces a model that runs start from, or a reward model."""
    input:
        template=ancient(TEMPLATES),
        manifest="results/models/{model}.json",
        trained=lambda wildcards: trained_manifest(wildcards.model),
        metrics="results/training/{model}/metrics.json",
    output:
        card=f"{FINAL}/cards/{{model}}.md",
    log:
        "logs/write_trained_card/{model}.txt",
    benchmark:
        "logs/write_trained_card/{model}.tsv"
    wildcard_constraints:
        model="|".join(TRAINED_HERE) or "(?!)",
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("write_trained_card"),
        contents=contents_of(*TEMPLATES),
        settings=lambda wildcards: flags(config={key: config[key] for key in ("models", "publish")}),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.publish.write_trained_card \
            --model-name {wildcards.model:q} \
            --manifest {input.manifest:q} \
            --trained {input.trained:q} \
            --metrics {input.metrics:q} \
            {params.settings} \
            --out {output.card:q}
        """


rule publish:
    """Push a model to the hub. Nothing else needs this: `snakemake results/published/dpo-1.json`."""
    input:
        unpack(pushed),
        manifest="results/models/{model}.json",
        card=f"{FINAL}/cards/{{model}}.md",
        pairs=pushed_pairs,
        pairs_card=pushed_pairs_card,
    output:
        published="results/published/{model}.json",
    log:
        "logs/publish/{model}.txt",
    benchmark:
        "logs/publish/{model}.tsv"
    wildcard_constraints:
        model="|".join([*config["models"], *TRAINED]),
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(2_000),
        runtime=240,
    params:
        code=code_of("publish"),
        settings=lambda wildcards: flags(section("publish", "namespace", "name", "private")),
        given=lambda wildcards, input: {
            key: input.get(key, []) for key in ("model", "adapter", "base", "pairs", "pairs_card")
        },
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.publish.publish \
            --policy {wildcards.model:q} \
            --model {params.given[model]:q} \
            --manifest {input.manifest:q} \
            --card {input.card:q} \
            --adapter {params.given[adapter]:q} \
            --base {params.given[base]:q} \
            --pairs {params.given[pairs]:q} \
            --pairs-card {params.given[pairs_card]:q} \
            {params.settings} \
            --out {output.published:q}
        """

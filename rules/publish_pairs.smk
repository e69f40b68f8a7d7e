# results/samples/{policy}/preferences.{parquet,json} -> results/cards/{run}-{iteration}-pairs.md
# config: publish (license, namespace, name); the card tells of prompts, generate, rewards and rank

PAIRS_TEMPLATE = "scripts/publish/pairs_card.md.j2"
SHOWN_IN_PAIRS_CARD = ("prompts", "generate", "rewards", "rank", "publish")


rule write_pairs_card:
    """Write the page that introduces the pairs that a policy learnt from."""
    input:
        template=ancient(PAIRS_TEMPLATE),
        pairs=lambda wildcards: pairs_of(wildcards, "parquet"),
        counts=lambda wildcards: pairs_of(wildcards, "json"),
    output:
        card=f"{FINAL}/cards/{{run}}-{{iteration}}-pairs.md",
    log:
        "logs/{run}-{iteration}/write_pairs_card.txt",
    benchmark:
        "logs/{run}-{iteration}/write_pairs_card.tsv"
    wildcard_constraints:
        run="|".join(RUNS_ON_PAIRS) or "(?!)",
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("write_pairs_card"),
        contents=contents_of(PAIRS_TEMPLATE),
        settings=flags(config={key: config[key] for key in SHOWN_IN_PAIRS_CARD}),
        sampled=RANKED,
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.publish.write_pairs_card \
            --policy {wildcards.run:q}-{wildcards.iteration:q} \
            --pairs {input.pairs:q} \
            --counts {input.counts:q} \
            --sampled {params.sampled:q} \
            {params.settings} \
            --out {output.card:q}
        """

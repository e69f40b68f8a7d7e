# everything under results/ that people read -> results/report.html
# config: all of it, since the page shows it; report

REPORT_ASSETS = [
    f"scripts/report/{name}" for name in ("page.html.j2", "style.css", "markdown.js", "browser.js")
]


rule write_config:
    """Write down the config of an experiment, which comparisons of experiments read."""
    output:
        config="results/experiments/{experiment}/config.yaml",
    log:
        "logs/write_config/{experiment}.txt",
    benchmark:
        "logs/write_config/{experiment}.tsv"
    wildcard_constraints:
        experiment=EXPERIMENT or "(?!)",
    conda:
        "../envs/cpu/report.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("write_config"),
        settings=flags(config=config),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.report.write_config \
            {params.settings} \
            --out {output.config:q}
        """


rule write_report:
    """Put the whole experiment on one page that opens from a disk."""
    input:
        assets=ancient(REPORT_ASSETS),
        questions=ancient(mt_bench_file("questions")),
        pool=["results/prompts/pool.json"] if RUNS else [],
        winrate=f"{FINAL}/winrate.json",
        picture=f"{FINAL}/winrate.png",
        sweeps=[f"{FINAL}/mt_bench/sweeps.png"] if SWEEPS else [],
        drift=[f"{FINAL}/drift.png"] if TRAINED else [],
        answers=expand("results/mt_bench/answers/{policy}.jsonl", policy=POLICIES),
        judgments=[
            path for judge in JUDGES for path in judgments(judge, JUDGED if judge == JUDGES[0] else COMPARED)
        ],
        ratings=[path for judge in JUDGES for path in judgments(judge, SINGLE)] if "single" in MODES else [],
        tables=BENCHMARK_TABLES,
        vibe_check=expand("results/vibe_check/{policy}.jsonl", policy=POLICIES),
        samples=expand(
            "results/samples/{policy}/{kind}/{shard}.parquet",
            policy=RANKED,
            kind=["prompts", "completions"],
            shard=ALL_SHARDS,
        ),
        ranked=expand(
            "results/samples/{policy}/{file}", policy=RANKED, file=["ranked.parquet", "rewards.png"]
        ),
        given=expand(
            "results/samples/{policy}/preferences.parquet",
            policy=[name for name in DATA_POLICIES if name not in RANKED],
        ),
        counts=expand(
            "results/samples/{policy}/{step}.json", policy=DATA_POLICIES, step=["preferences", "tokenized"]
        ),
        trainings=expand(
            "results/training/{model}/{file}", model=TRAININGS, file=["metrics.json", "training.png"]
        ),
        manifests=expand("results/models/{model}.json", model=[*NEEDED, *TRAINED]),
    output:
        page=report(f"{FINAL}/report.html", caption="captions/report.rst", category="Results"),
    log:
        "logs/write_report.txt",
    benchmark:
        "logs/write_report.tsv"
    conda:
        "../envs/cpu/report.yaml"
    resources:
        mem_mb=per_attempt(4_000),
        runtime=30,
    params:
        code=code_of("write_report"),
        contents=contents_of(config["mt_bench"]["questions"], *REPORT_ASSETS),
        settings=lambda wildcards: flags(
            section("report"),
            shards=number_of_shards(),
            config=config,
            runs={
                run: {
                    "method": configuration.method_of(config, run),
                    **section,
                    **configuration.training(config, run),
                }
                for run, section in config["runs"].items()
            },
        ),
        policies=POLICIES,
        sampled=RANKED,
        paired=DATA_POLICIES,
        trained=TRAININGS,
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.report.write_report \
            --winrate {input.winrate:q} \
            --winrate-picture {input.picture:q} \
            --sweeps-picture {input.sweeps:q} \
            --drift-picture {input.drift:q} \
            --questions {input.questions:q} \
            --policies {params.policies:q} \
            --answers {input.answers:q} \
            --judgments {input.judgments:q} \
            --ratings {input.ratings:q} \
            --vibe-check {input.vibe_check:q} \
            --tables {input.tables:q} \
            --pool {input.pool:q} \
            --samples results/samples \
            --sampled {params.sampled:q} \
            --paired {params.paired:q} \
            --training results/training \
            --trained {params.trained:q} \
            --manifests {input.manifests:q} \
            --logs logs \
            {params.settings} \
            --out {output.page:q}
        """

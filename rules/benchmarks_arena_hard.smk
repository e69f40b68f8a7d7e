# judgments and answers in arena-hard-auto's form -> results/benchmarks/{benchmark}/{policy}.json
# config: benchmarks of the kind arena_hard, seed


rule score_arena_hard:
    """Score a policy by judgments in arena-hard-auto's form."""
    input:
        judgments=lambda wildcards: ancient(members(named_by(wildcards.benchmark, "judgments"))),
        answers=lambda wildcards: ancient(members(named_by(wildcards.benchmark, "answers"))),
    output:
        results="results/benchmarks/{benchmark}/{policy}.json",
    log:
        "logs/{policy}/score_arena_hard/{benchmark}.txt",
    benchmark:
        "logs/{policy}/score_arena_hard/{benchmark}.tsv"
    wildcard_constraints:
        benchmark=of_kind(BENCHMARKS, "arena_hard"),
    conda:
        "../envs/cpu/report.yaml"
    resources:
        mem_mb=per_attempt(2_000),
        runtime=60,
    params:
        code=code_of("score_arena_hard"),
        contents=lambda wildcards, input: contents_of(*input.judgments, *input.answers),
        settings=lambda wildcards: flags(
            section(
                f"benchmarks.{wildcards.benchmark}", "judgments", "answers", "baseline", "bootstrap_samples"
            ),
            seed=config["seed"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.benchmarks.score_arena_hard \
            --policy {wildcards.policy:q} \
            --benchmark {wildcards.benchmark:q} \
            {params.settings} \
            --out {output.results:q}
        """

# references, an endpoint -> results/checks/endpoints/benchmarks.{benchmark}.json
# config: benchmarks of the kind alpaca_eval, endpoints


rule check_annotator:
    """Ask the judge of {wildcards.benchmark} for one annotation, as its jobs do."""
    input:
        references=get_questions,
    output:
        found="results/checks/endpoints/benchmarks.{benchmark}.json",
    log:
        "logs/check_annotator/{benchmark}.txt",
    benchmark:
        "logs/check_annotator/{benchmark}.tsv"
    wildcard_constraints:
        benchmark=of_kind(BENCHMARKS, "alpaca_eval"),
    conda:
        "../envs/cpu/evaluate.yaml"
    resources:
        mem_mb=per_attempt(2_000),
        runtime=30,
    params:
        code=code_of("check_annotator"),
        contents=lambda wildcards: contents_of(BENCHMARKS[wildcards.benchmark]["references"]),
        settings=lambda wildcards: flags(
            section(f"benchmarks.{wildcards.benchmark}", "annotator", "endpoint"),
            asker=f"benchmarks.{wildcards.benchmark}",
            policies=len(POLICIES),
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.checks.check_annotator \
            --references {input.references:q} \
            {params.settings} \
            --journal work/journal \
            --out {output.found:q}
        """

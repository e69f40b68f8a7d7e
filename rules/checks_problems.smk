# problems with right answers -> results/checks/problems/{benchmark}.json, .jsonl
# config: benchmarks of the kind math


rule check_problems:
    """Read the problems of {wildcards.benchmark}, and parse all references as the verifier does."""
    input:
        source=lambda wildcards: ancient(data_files(named_by(wildcards.benchmark, "source"))),
    output:
        found="results/checks/problems/{benchmark}.json",
        problems="results/checks/problems/{benchmark}.jsonl",
    log:
        "logs/check_problems/{benchmark}.txt",
    benchmark:
        "logs/check_problems/{benchmark}.tsv"
    wildcard_constraints:
        benchmark=of_kind(BENCHMARKS, "math"),
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(6_000),
        runtime=60,
    params:
        code=code_of("check_problems"),
        contents=lambda wildcards: contents_of(*data_files(BENCHMARKS[wildcards.benchmark]["source"])),
        settings=lambda wildcards: flags(
            section(f"benchmarks.{wildcards.benchmark}", "source", "columns", "system")
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.checks.check_problems \
            --benchmark {wildcards.benchmark:q} \
            {params.settings} \
            --problems {output.problems:q} \
            --out {output.found:q}
        """

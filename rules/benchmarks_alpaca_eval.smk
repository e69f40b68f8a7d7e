# results/benchmarks/{benchmark}/answers/{policy}.jsonl -> results/benchmarks/{benchmark}/annotations/{policy}.jsonl
# a policy's annotations                                -> results/benchmarks/{benchmark}/{policy}.json
# config: benchmarks of the kinds alpaca_eval and alpaca_eval_annotations, endpoints


rule annotate_alpaca_eval:
    """Have a judge compare a policy's outputs with the references."""
    input:
        references=lambda wildcards: ancient(BENCHMARKS[wildcards.benchmark]["references"]),
        checked=ancient("results/checks/endpoints/benchmarks.{benchmark}.json"),
        answers="results/benchmarks/{benchmark}/answers/{policy}.jsonl",
    output:
        annotations="results/benchmarks/{benchmark}/annotations/{policy}.jsonl",
    log:
        "logs/{policy}/annotate_alpaca_eval/{benchmark}.txt",
    benchmark:
        "logs/{policy}/annotate_alpaca_eval/{benchmark}.tsv"
    wildcard_constraints:
        benchmark=of_kind(BENCHMARKS, "alpaca_eval"),
    conda:
        "../envs/cpu/evaluate.yaml"
    resources:
        mem_mb=per_attempt(2_000),
        runtime=240,
        concurrency=16,
        endpoint=lambda wildcards: json.dumps(BENCHMARKS[wildcards.benchmark]["endpoint"]),
    params:
        code=code_of("annotate_alpaca_eval"),
        endpoint=lambda wildcards: flags(endpoints.counted(BENCHMARKS[wildcards.benchmark]["endpoint"])),
        contents=lambda wildcards: contents_of(BENCHMARKS[wildcards.benchmark]["references"]),
        settings=lambda wildcards: flags(section(f"benchmarks.{wildcards.benchmark}", "annotator")),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.benchmarks.annotate_alpaca_eval \
            --references {input.references:q} \
            --answers {input.answers:q} \
            {params.settings} \
            --concurrency {resources.concurrency:q} \
            --endpoint {resources.endpoint:q} \
            --journal work/journal \
            --out {output.annotations:q}
        """


rule score_alpaca_eval:
    """Compute a policy's win rates from its annotations."""
    input:
        annotations=get_annotations,
        data=lambda wildcards: ancient(regression_data(wildcards)),
    output:
        results="results/benchmarks/{benchmark}/{policy}.json",
    log:
        "logs/{policy}/score_alpaca_eval/{benchmark}.txt",
    benchmark:
        "logs/{policy}/score_alpaca_eval/{benchmark}.tsv"
    wildcard_constraints:
        benchmark=of_kind(BENCHMARKS, "alpaca_eval", "alpaca_eval_annotations"),
    conda:
        "../envs/cpu/evaluate.yaml"
    resources:
        mem_mb=per_attempt(2_000),
        runtime=30,
    params:
        code=code_of("score_alpaca_eval"),
        contents=lambda wildcards: contents_of(*given_annotations(wildcards), *regression_data(wildcards)),
        settings=lambda wildcards: flags(
            section(f"benchmarks.{wildcards.benchmark}", "regression_data"), annotated_by(wildcards)
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.benchmarks.score_alpaca_eval \
            --policy {wildcards.policy:q} \
            --benchmark {wildcards.benchmark:q} \
            --annotations {input.annotations:q} \
            {params.settings} \
            --out {output.results:q}
        """

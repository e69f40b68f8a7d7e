# results/models/{policy}                          -> results/benchmarks/{benchmark}/{policy}.json
# the results of all benchmarks and of all policies -> results/benchmarks.csv

BENCHMARKS = config["benchmarks"]
BENCHMARK_TABLE = ["results/benchmarks.csv"] if BENCHMARKS else []


rule evaluate_lm_eval:
    """Evaluate a policy on tasks of lm-evaluation-harness."""
    input:
        unpack(lambda wildcards: {"tasks": ancient(task_files(wildcards.benchmark))}),
        model=ancient("results/models/{policy}"),
        manifest="results/models/{policy}.json",
    output:
        results="results/benchmarks/{benchmark}/{policy}.json",
    log:
        "logs/{policy}/evaluate_lm_eval/{benchmark}.txt",
    benchmark:
        "benchmarks/{policy}/evaluate_lm_eval/{benchmark}.tsv"
    wildcard_constraints:
        benchmark=of_kind(BENCHMARKS, "lm_eval"),
    conda:
        "../envs/cpu/evaluate.yaml"
    threads: 1
    resources:
        gpu=1,
        nodes=1,
        mem_mb=per_attempt(4_000),
        runtime=480,
        batch_size=16,
    params:
        code=code_of("evaluate_lm_eval"),
        contents=lambda wildcards: contents_of(*task_files(wildcards.benchmark)),
        settings=lambda wildcards: flags(benchmark_settings(wildcards), seed=config["seed"]),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.lease_gpus {resources.gpu:q} python -m scripts.evaluate_lm_eval \
            --model {input.model:q} \
            --policy {wildcards.policy:q} \
            --benchmark {wildcards.benchmark:q} \
            {params.settings} \
            --batch-size {resources.batch_size:q} \
            --out {output.results:q}
        """


rule gather_benchmarks:
    """Gather the results of all benchmarks and policies into one table."""
    input:
        results=expand("results/benchmarks/{benchmark}/{policy}.json", benchmark=BENCHMARKS, policy=POLICIES),
    output:
        table="results/benchmarks.csv",
    log:
        "logs/gather_benchmarks.txt",
    benchmark:
        "benchmarks/gather_benchmarks.tsv"
    conda:
        "../envs/cpu/report.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("gather_benchmarks"),
        results=lambda wildcards, input: sorted(input.results),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.gather_benchmarks \
            --results {params.results:q} \
            --out {output.table:q}
        """

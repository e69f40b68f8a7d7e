# results/models/{policy}                          -> results/benchmarks/{benchmark}/{policy}.json
# the results of all benchmarks and of all policies -> results/benchmarks.csv

BENCHMARKS = config["benchmarks"]
BENCHMARK_TABLE = ["results/benchmarks.csv", "results/contamination.csv"] if BENCHMARKS else []


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
        "logs/{policy}/evaluate_lm_eval/{benchmark}.tsv"
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

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.benchmarks.evaluate_lm_eval \
            --model {input.model:q} \
            --policy {wildcards.policy:q} \
            --benchmark {wildcards.benchmark:q} \
            {params.settings} \
            --batch-size {resources.batch_size:q} \
            --out {output.results:q}
        """


rule answer_benchmark:
    """Have a policy answer a benchmark's questions."""
    input:
        questions=get_questions,
        model=ancient("results/models/{policy}"),
        manifest="results/models/{policy}.json",
    output:
        answers="results/benchmarks/{benchmark}/answers/{policy}.jsonl",
    log:
        "logs/{policy}/answer_benchmark/{benchmark}.txt",
    benchmark:
        "logs/{policy}/answer_benchmark/{benchmark}.tsv"
    wildcard_constraints:
        benchmark=of_kind(BENCHMARKS, "alpaca_eval", "evalplus"),
    conda:
        "../envs/cpu/generate.yaml"
    threads: 1
    resources:
        gpu=engine_gpus(),
        nodes=1,
        mem_mb=per_attempt(3_000),
        runtime=240,
        batch_size=256,
        tensor_parallel_size=1,
        gpu_memory_percent=90,
        max_num_batched_tokens=0,
        servers=config["generate"]["servers"] or "",
        server_timeout=600,
    params:
        code=code_of("answer_benchmark"),
        contents=lambda wildcards: contents_of(questions_of(wildcards.benchmark)),
        settings=lambda wildcards: flags(
            engine_settings(),
            {key: BENCHMARKS[wildcards.benchmark][key] for key in ("temperature", "max_tokens")},
            form=BENCHMARKS[wildcards.benchmark]["kind"],
            seed=config["seed"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.benchmarks.answer_benchmark \
            --questions {input.questions:q} \
            --policy {wildcards.policy:q} \
            --model {input.model:q} \
            {params.settings} \
            --batch-size {resources.batch_size:q} \
            --tensor-parallel-size {resources.tensor_parallel_size:q} \
            --gpu-memory-percent {resources.gpu_memory_percent:q} \
            --max-num-batched-tokens {resources.max_num_batched_tokens:q} \
            --servers={resources.servers:q} \
            --server-timeout {resources.server_timeout:q} \
            --journal work/journal \
            --out {output.answers:q}
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
        "logs/gather_benchmarks.tsv"
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

        exec python -m scripts.benchmarks.gather_benchmarks \
            --results {params.results:q} \
            --out {output.table:q}
        """


include: "alpaca_eval.smk"
include: "evalplus.smk"
include: "arena_hard.smk"
include: "contamination.smk"

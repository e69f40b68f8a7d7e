# results/models/{policy}            -> results/benchmarks/{benchmark}/answers/{policy}.jsonl
# results/benchmarks/{benchmark}/{policy}.json, of all benchmarks and policies -> results/benchmarks/benchmarks.csv
# config: benchmarks, generate, seed
#
# benchmarks_KIND.smk has what makes {benchmark}/{policy}.json of answers or models.


include: "benchmarks_alpaca_eval.smk"
include: "benchmarks_arena_hard.smk"
include: "benchmarks_contamination.smk"
include: "benchmarks_evalplus.smk"
include: "benchmarks_lm_eval.smk"
include: "benchmarks_math.smk"
include: "benchmarks_reward_bench.smk"


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
        benchmark=of_kind(BENCHMARKS, "alpaca_eval", "evalplus", "math"),
    conda:
        "../envs/cpu/generate.yaml"
    resources:
        **ENGINE,
        runtime=240,
    params:
        code=code_of("answer_benchmark"),
        contents=contents_of_questions,
        settings=lambda wildcards: flags(
            engine_settings(),
            section(f"benchmarks.{wildcards.benchmark}", "temperature", "max_tokens"),
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
            --journal work/journal \
            --out {output.answers:q} \
            """ + (ENGINE_FLAGS)


rule gather_benchmarks:
    """Gather the results of all benchmarks into one table."""
    input:
        results=[path for name in BENCHMARKS for path in benchmark_results_of(name)],
    output:
        table=f"{FINAL}/benchmarks/benchmarks.csv",
    log:
        "logs/gather_benchmarks.txt",
    benchmark:
        "logs/gather_benchmarks.tsv"
    conda:
        "../envs/cpu/report.yaml"
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

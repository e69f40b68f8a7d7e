# results/benchmarks/{benchmark}/answers/{policy}.jsonl -> results/benchmarks/{benchmark}/{policy}.json, verdicts/
# config: benchmarks of the kind evalplus


rule execute_evalplus:
    """Run the code that a policy wrote against tests, in a sandbox."""
    input:
        problems=lambda wildcards: ancient(questions_of(wildcards.benchmark)),
        answers="results/benchmarks/{benchmark}/answers/{policy}.jsonl",
    output:
        verdicts="results/benchmarks/{benchmark}/verdicts/{policy}.jsonl",
        results="results/benchmarks/{benchmark}/{policy}.json",
    log:
        "logs/{policy}/execute_evalplus/{benchmark}.txt",
    benchmark:
        "logs/{policy}/execute_evalplus/{benchmark}.tsv"
    wildcard_constraints:
        benchmark=of_kind(BENCHMARKS, "evalplus"),
    conda:
        "../envs/cpu/execute.yaml"
    threads: 4
    resources:
        mem_mb=per_attempt(8_000),
        runtime=120,
    params:
        code=code_of("execute_evalplus"),
        contents=lambda wildcards: contents_of(questions_of(wildcards.benchmark)),
        settings=lambda wildcards: flags(
            section(f"benchmarks.{wildcards.benchmark}", "temperature", "max_tokens")
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.benchmarks.execute_evalplus \
            --policy {wildcards.policy:q} \
            --benchmark {wildcards.benchmark:q} \
            --problems {input.problems:q} \
            --answers {input.answers:q} \
            {params.settings} \
            --parallel {threads:q} \
            --verdicts {output.verdicts:q} \
            --out {output.results:q}
        """

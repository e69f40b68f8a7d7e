# results/benchmarks/{benchmark}/answers/{policy}.jsonl -> results/benchmarks/{benchmark}/{policy}.json, verdicts/
# config: benchmarks of the kind math


rule verify_answers:
    """Verify a policy's answers to mathematical problems, as rewards are."""
    input:
        answers="results/benchmarks/{benchmark}/answers/{policy}.jsonl",
    output:
        verdicts="results/benchmarks/{benchmark}/verdicts/{policy}.jsonl",
        results="results/benchmarks/{benchmark}/{policy}.json",
    log:
        "logs/{policy}/verify_answers/{benchmark}.txt",
    benchmark:
        "logs/{policy}/verify_answers/{benchmark}.tsv"
    wildcard_constraints:
        benchmark=of_kind(BENCHMARKS, "math"),
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(6_000),
        runtime=120,
    params:
        code=code_of("verify_answers"),
        settings=lambda wildcards: flags(
            section(f"benchmarks.{wildcards.benchmark}", "temperature", "max_tokens")
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.benchmarks.verify_answers \
            --policy {wildcards.policy:q} \
            --benchmark {wildcards.benchmark:q} \
            --answers {input.answers:q} \
            {params.settings} \
            --verdicts {output.verdicts:q} \
            --out {output.results:q}
        """

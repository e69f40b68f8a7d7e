# the prompts' references     -> results/checks/references/{reward}.json
# problems with right answers -> results/checks/problems/{benchmark}.json, .jsonl
# config: prompts, rewards by a verifier, benchmarks of the kind math


rule check_references:
    """Parse the references of all prompts as the verifier of {wildcards.reward} does."""
    input:
        source=ancient(data_files(config["prompts"]["source"])),
    output:
        found="results/checks/references/{reward}.json",
    log:
        "logs/check_references/{reward}.txt",
    benchmark:
        "logs/check_references/{reward}.tsv"
    wildcard_constraints:
        reward="|".join(VERIFIED) or "(?!)",
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(6_000),
        runtime=60,
    params:
        code=code_of("check_references"),
        contents=contents_of(*data_files(config["prompts"]["source"])),
        settings=lambda wildcards: flags(
            section("prompts", "source", "columns"),
            section(f"rewards.{wildcards.reward}", "function", "arguments"),
            section("data"),
            reward=wildcards.reward,
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.checks.check_references \
            {params.settings} \
            --out {output.found:q}
        """


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

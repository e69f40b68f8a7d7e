# results/models/{policy}             -> results/benchmarks/{benchmark}/{policy}.json, samples/
# the tasks of lm-evaluation-harness -> results/benchmarks/{benchmark}/questions.jsonl
# config: benchmarks of the kind lm_eval, seed


rule evaluate_lm_eval:
    """Evaluate a policy on tasks of lm-evaluation-harness."""
    input:
        unpack(lambda wildcards: {"tasks": ancient(task_files(wildcards.benchmark))}),
        model=ancient("results/models/{policy}"),
        manifest="results/models/{policy}.json",
    output:
        samples="results/benchmarks/{benchmark}/samples/{policy}.jsonl",
        results="results/benchmarks/{benchmark}/{policy}.json",
    log:
        "logs/{policy}/evaluate_lm_eval/{benchmark}.txt",
    benchmark:
        "logs/{policy}/evaluate_lm_eval/{benchmark}.tsv"
    wildcard_constraints:
        benchmark=of_kind(BENCHMARKS, "lm_eval"),
    conda:
        "../envs/cpu/evaluate.yaml"
    resources:
        gpu=1,
        nodes=1,
        mem_mb=per_attempt(4_000),
        runtime=480,
        batch_size=16,
    params:
        code=code_of("evaluate_lm_eval"),
        contents=lambda wildcards: contents_of(*task_files(wildcards.benchmark)),
        settings=lambda wildcards: flags(
            section(
                f"benchmarks.{wildcards.benchmark}",
                "tasks",
                "include_path",
                "num_fewshot",
                "limit",
                "apply_chat_template",
                "dtype",
            ),
            seed=config["seed"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.benchmarks.evaluate_lm_eval \
            --model {input.model:q} \
            --policy {wildcards.policy:q} \
            --benchmark {wildcards.benchmark:q} \
            {params.settings} \
            --batch-size {resources.batch_size:q} \
            --samples {output.samples:q} \
            --out {output.results:q}
        """


rule list_lm_eval_questions:
    """Write what lm-evaluation-harness asks in a benchmark's tasks."""
    input:
        unpack(lambda wildcards: {"tasks": ancient(task_files(wildcards.benchmark))}),
    output:
        questions="results/benchmarks/{benchmark}/questions.jsonl",
    log:
        "logs/list_lm_eval_questions/{benchmark}.txt",
    benchmark:
        "logs/list_lm_eval_questions/{benchmark}.tsv"
    wildcard_constraints:
        benchmark=of_kind(BENCHMARKS, "lm_eval"),
    conda:
        "../envs/cpu/evaluate.yaml"
    resources:
        mem_mb=per_attempt(2_000),
        runtime=60,
    params:
        code=code_of("list_lm_eval_questions"),
        contents=lambda wildcards: contents_of(*task_files(wildcards.benchmark)),
        settings=lambda wildcards: flags(
            section(f"benchmarks.{wildcards.benchmark}", "tasks", "include_path")
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.benchmarks.list_lm_eval_questions \
            --benchmark {wildcards.benchmark:q} \
            {params.settings} \
            --out {output.questions:q}
        """

# the tasks of lm-evaluation-harness                     -> results/benchmarks/{benchmark}/questions.jsonl
# training data and the questions of all benchmarks      -> results/contamination.json, results/contamination.csv

# The files that models are trained on, with their columns, and where each benchmark's questions stand.
LEARNT = {
    f"models.{name}": [config["models"][name][key] for key in ("train_data", "columns")]
    for name in TRAININGS
    if name in config["models"]
}
if GIVEN_PAIRS:
    LEARNT["prompts.preferences"] = [GIVEN_PAIRS["source"], GIVEN_PAIRS["columns"]]
ASKED = {"mt_bench": [config["mt_bench"]["questions"], "turns"]} | {
    name: (
        [f"results/benchmarks/{name}/questions.jsonl", "question"]
        if section["kind"] == "lm_eval"
        else [questions_of(name), "prompt" if section["kind"] == "evalplus" else "instruction"]
    )
    for name, section in BENCHMARKS.items()
    if section["kind"] in ("alpaca_eval", "evalplus", "lm_eval")
}
GIVEN_QUESTIONS = [path for path, _ in ASKED.values() if not path.startswith("results/")]


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
    threads: 1
    resources:
        mem_mb=per_attempt(2_000),
        runtime=60,
    params:
        code=code_of("list_lm_eval_questions"),
        contents=lambda wildcards: contents_of(*task_files(wildcards.benchmark)),
        settings=lambda wildcards: flags(
            {key: BENCHMARKS[wildcards.benchmark][key] for key in ("tasks", "include_path")}
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.benchmarks.list_lm_eval_questions \
            --benchmark {wildcards.benchmark:q} \
            {params.settings} \
            --out {output.questions:q}
        """


rule check_contamination:
    """Search the training data for the benchmarks' questions."""
    input:
        training=ancient(local_files(*(source for source, _ in LEARNT.values()))),
        pool="results/prompts/pool.parquet",
        given=ancient(GIVEN_QUESTIONS),
        listed=[path for path, _ in ASKED.values() if path not in GIVEN_QUESTIONS],
    output:
        json="results/contamination.json",
        csv="results/contamination.csv",
    log:
        "logs/check_contamination.txt",
    benchmark:
        "logs/check_contamination.tsv"
    conda:
        "../envs/cpu/data.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(8_000),
        runtime=120,
    params:
        code=code_of("check_contamination"),
        contents=contents_of(*GIVEN_QUESTIONS, *(source for source, _ in LEARNT.values())),
        settings=lambda wildcards, input: flags(
            training={**LEARNT, "prompts": [input.pool, {"messages": "messages", "split": "split"}]},
            questions=ASKED,
            ngram=config["prompts"]["decontamination_ngram"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.benchmarks.check_contamination \
            {params.settings} \
            --out {output.json:q} \
            --csv {output.csv:q}
        """

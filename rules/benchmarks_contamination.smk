# training data and the questions of all benchmarks -> results/benchmarks/contamination.json, results/benchmarks/contamination.csv
# config: the data of models and prompts, prompts (decontamination_ngram), mt_bench (questions), benchmarks

# The files that models are trained on, with their columns.
LEARNT = {
    f"models.{name}": [config["models"][name][key] for key in ("train_data", "columns")]
    for name in TRAININGS
    if name in config["models"]
}
if GIVEN_PAIRS:
    LEARNT["prompts.preferences"] = [GIVEN_PAIRS["source"], GIVEN_PAIRS["columns"]]
POOL_COLUMNS = {"messages": "messages", "split": "split"}
# The file with each benchmark's questions, and their names in it.
ASKED = {"mt_bench": [config["mt_bench"]["questions"], "turns"]} | {
    name: (
        [f"results/benchmarks/{name}/questions.jsonl", "question"]
        if benchmark["kind"] == "lm_eval"
        else [questions_of(name), benchmark_results.QUESTION[benchmark["kind"]]]
    )
    for name, benchmark in BENCHMARKS.items()
    if benchmark["kind"] in ("lm_eval", "math", *ASKING)
}
GIVEN_QUESTIONS = [path for path, _ in ASKED.values() if not path.startswith("results/")]


rule check_contamination:
    """Search the training data for the benchmarks' questions."""
    input:
        training=ancient(data_files(*(source for source, _ in LEARNT.values()))),
        pool=["results/prompts/pool.parquet"] if RUNS else [],
        given=ancient(GIVEN_QUESTIONS),
        listed=[path for path, _ in ASKED.values() if path not in GIVEN_QUESTIONS],
    output:
        json=f"{FINAL}/benchmarks/contamination.json",
        csv=f"{FINAL}/benchmarks/contamination.csv",
    log:
        "logs/check_contamination.txt",
    benchmark:
        "logs/check_contamination.tsv"
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(8_000),
        runtime=120,
    params:
        code=code_of("check_contamination"),
        contents=contents_of(*GIVEN_QUESTIONS, *data_files(*(source for source, _ in LEARNT.values()))),
        settings=lambda wildcards, input: flags(
            section("prompts", "decontamination_ngram"),
            training=LEARNT | {"prompts": [path, POOL_COLUMNS] for path in input.pool},
            questions=ASKED,
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.benchmarks.check_contamination \
            {params.settings} \
            --out {output.json:q} \
            --csv {output.csv:q}
        """

# training data and the questions of all benchmarks -> results/contamination.json, results/contamination.csv
# config: the data of models and prompts, prompts (decontamination_ngram), mt_bench (questions), benchmarks

# The files that models are trained on, with their columns.
LEARNT = {
    f"models.{name}": [config["models"][name][key] for key in ("train_data", "columns")]
    for name in TRAININGS
    if name in config["models"]
}
if GIVEN_PAIRS:
    LEARNT["prompts.preferences"] = [GIVEN_PAIRS["source"], GIVEN_PAIRS["columns"]]


def asked():
    """Where each benchmark's questions stand, and what they are called there."""
    found = {"mt_bench": [config["mt_bench"]["questions"], "turns"]}
    for name, benchmark in BENCHMARKS.items():
        if benchmark["kind"] == "lm_eval":
            found[name] = [f"results/benchmarks/{name}/questions.jsonl", "question"]
        elif benchmark["kind"] in ("alpaca_eval", "evalplus"):
            found[name] = [questions_of(name), benchmark_results.QUESTION[benchmark["kind"]]]
    return found


def asked_in(listed):
    """The files of questions that rules here list, or those that the config names."""
    return [path for path, _ in asked().values() if path.startswith("results/") == listed]


rule check_contamination:
    """Search the training data for the benchmarks' questions."""
    input:
        training=ancient(local_files(*(source for source, _ in LEARNT.values()))),
        pool="results/prompts/pool.parquet",
        given=lambda wildcards: ancient(asked_in(listed=False)),
        listed=lambda wildcards: asked_in(listed=True),
    output:
        json="results/contamination.json",
        csv="results/contamination.csv",
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
        contents=lambda wildcards: contents_of(
            *asked_in(listed=False), *(source for source, _ in LEARNT.values())
        ),
        settings=lambda wildcards, input: flags(
            section("prompts", "decontamination_ngram"),
            training={**LEARNT, "prompts": [input.pool, {"messages": "messages", "split": "split"}]},
            questions=asked(),
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.benchmarks.check_contamination \
            {params.settings} \
            --out {output.json:q} \
            --csv {output.csv:q}
        """

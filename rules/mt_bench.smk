# results/models/{policy}                   -> results/mt_bench/answers/{policy}.jsonl
# a policy's answers and the start policy's -> results/mt_bench/judgments/{reference,reward}/{match}.jsonl
# an address in mt_bench                    -> results/mt_bench/data/{file}.jsonl, references with corrections
# config: mt_bench (questions, references, corrections, judge_prompts, system, max_tokens, temperature), generate, rewards,
#     seed
#
# Language models as judges: mt_bench_judges.smk. Win rates from the verdicts: mt_bench_winrate.smk.


include: "mt_bench_judges.smk"
include: "mt_bench_winrate.smk"
include: "mt_bench_sweeps.smk"


# Each judge's inputs beside the questions and answers, and its flags.
REFERENCES = mt_bench_file("references")
JUDGE_INPUTS = {"reference": {"references": ancient(REFERENCES)}}
JUDGE_SETTINGS = {"reference": {"judge": "reference", "references": REFERENCES}}
JUDGE_DATA = {"reference": section("mt_bench", "references", "corrections").values(), "reward": []}

# The judge `reward` uses the reward that is a classifier, the first by name if there are several.
for name in [name for name in sorted(REWARDS) if REWARDS[name]["kind"] == "classifier"][:1]:
    judging = f"results/models/{REWARDS[name]['model']}"
    JUDGE_INPUTS["reward"] = {"model": ancient(judging), "manifest": f"{judging}.json"}
    JUDGE_SETTINGS["reward"] = {
        "judge": "reward",
        "model": judging,
        **section(f"rewards.{name}", "dtype", "head_weights"),
        **section("mt_bench", "system"),
    }


rule fetch_mt_bench:
    """Fetch questions, references or judge prompts from their public source."""
    input:
        corrections=lambda wildcards: ancient(corrections_of(wildcards.file)),
    output:
        file="results/mt_bench/data/{file}.jsonl",
    log:
        "logs/fetch_mt_bench/{file}.txt",
    benchmark:
        "logs/fetch_mt_bench/{file}.tsv"
    wildcard_constraints:
        file="questions|references|judge_prompts",
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("fetch_mt_bench"),
        source=lambda wildcards: config["mt_bench"][wildcards.file],
        contents=lambda wildcards: contents_of(*corrections_of(wildcards.file)),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.mt_bench.fetch_mt_bench \
            --source {params.source:q} \
            --corrections {input.corrections:q} \
            --out {output.file:q}
        """


rule answer_mt_bench:
    """Have a policy answer the MT-Bench questions, turn by turn."""
    input:
        questions=ancient(mt_bench_file("questions")),
        model=ancient("results/models/{policy}"),
        manifest="results/models/{policy}.json",
    output:
        answers="results/mt_bench/answers/{policy}.jsonl",
    log:
        "logs/{policy}/answer_mt_bench.txt",
    benchmark:
        "logs/{policy}/answer_mt_bench.tsv"
    conda:
        "../envs/cpu/generate.yaml"
    resources:
        **ENGINE,
        runtime=120,
    params:
        code=code_of("answer_mt_bench"),
        contents=contents_of(config["mt_bench"]["questions"]),
        settings=lambda wildcards: flags(
            engine_settings(),
            section("mt_bench", "system", "max_tokens", "temperature"),
            seed=config["seed"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.mt_bench.answer_mt_bench \
            --questions {input.questions:q} \
            --model {input.model:q} \
            --model-id {wildcards.policy:q} \
            {params.settings} \
            --journal work/journal \
            --out {output.answers:q} \
            """ + (ENGINE_FLAGS)


rule judge_mt_bench:
    """Judge a policy's MT-Bench answers against another's, in both orders."""
    input:
        unpack(lambda wildcards: JUDGE_INPUTS[wildcards.judge]),
        questions=ancient(mt_bench_file("questions")),
        answers=get_answers,
    output:
        judgments="results/mt_bench/judgments/{judge}/{match}.jsonl",
    log:
        "logs/{match}/judge_mt_bench/{judge}.txt",
    benchmark:
        "logs/{match}/judge_mt_bench/{judge}.tsv"
    wildcard_constraints:
        judge="reference|reward",
        match="|".join(MATCHES) or "(?!)",
    conda:
        "../envs/cpu/score.yaml"
    resources:
        gpu=lambda wildcards: int(wildcards.judge == "reward"),
        nodes=1,
        mem_mb=per_attempt(3_000),
        runtime=120,
        batch_tokens=16384,
    params:
        code=code_of("judge_mt_bench"),
        contents=lambda wildcards: contents_of(config["mt_bench"]["questions"], *JUDGE_DATA[wildcards.judge]),
        settings=lambda wildcards: flags(JUDGE_SETTINGS[wildcards.judge]),
        models=lambda wildcards: MATCHES[wildcards.match],
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.mt_bench.judge_mt_bench \
            --questions {input.questions:q} \
            --answers-1 {input.answers[0]:q} \
            --model-1 {params.models[0]:q} \
            --answers-2 {input.answers[1]:q} \
            --model-2 {params.models[1]:q} \
            {params.settings} \
            --batch-tokens {resources.batch_tokens:q} \
            --journal work/journal \
            --out {output.judgments:q}
        """

# results/models/{policy}                   -> results/mt_bench/answers/{policy}.jsonl
# a policy's answers and the start policy's -> results/mt_bench/judgments/{judge}/{policy}.jsonl


# What each judge reads beside the questions and answers, and its flags.
JUDGE_INPUTS = {
    "reference": {"references": config["mt_bench"]["references"]},
    "reward": {
        "model": ancient("results/models/reward_model"),
        "manifest": "results/models/reward_model.json",
    },
}
JUDGE_FLAGS = {
    "reference": flags({"references": config["mt_bench"]["references"]}),
    "reward": flags(
        {
            "model": "results/models/reward_model",
            "batch_tokens": config["rank"]["batch_tokens"],
            "dtype": config["rank"]["dtype"],
        }
    ),
}


rule answer_mt_bench:
    """Have a policy answer the MT-Bench questions, turn by turn."""
    input:
        code=sources("answer_mt_bench"),
        questions=config["mt_bench"]["questions"],
        model=ancient("results/models/{policy}"),
        manifest="results/models/{policy}.json",
    output:
        answers="results/mt_bench/answers/{policy}.jsonl",
    log:
        "logs/{policy}/answer_mt_bench.txt",
    benchmark:
        "benchmarks/{policy}/answer_mt_bench.tsv"
    conda:
        "../envs/cpu/generate.yaml"
    threads: 1
    resources:
        mem_mb=3_000,
        runtime=120,
    params:
        engine=config["generate"]["engine"],
        batch_size=config["generate"]["batch_size"],
        dtype=config["generate"]["dtype"],
        max_tokens=config["mt_bench"]["max_tokens"],
        temperature=json.dumps(config["mt_bench"]["temperature"]),
        seed=config["seed"],
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.answer_mt_bench \
            --questions {input.questions:q} \
            --model {input.model:q} \
            --model-id {wildcards.policy:q} \
            --engine {params.engine:q} \
            --batch-size {params.batch_size:q} \
            --dtype {params.dtype:q} \
            --max-tokens {params.max_tokens:q} \
            --temperature {params.temperature:q} \
            --seed {params.seed:q} \
            --out {output.answers:q}
        """


rule judge_mt_bench:
    """Judge a policy's MT-Bench answers against the start policy's, in both orders."""
    input:
        unpack(lambda wildcards: JUDGE_INPUTS[wildcards.judge]),
        code=sources("judge_mt_bench"),
        questions=config["mt_bench"]["questions"],
        answers="results/mt_bench/answers/{policy}.jsonl",
        start_answers=f"results/mt_bench/answers/{START}.jsonl",
    output:
        judgments="results/mt_bench/judgments/{judge}/{policy}.jsonl",
    log:
        "logs/{policy}/judge_mt_bench/{judge}.txt",
    benchmark:
        "benchmarks/{policy}/judge_mt_bench/{judge}.tsv"
    wildcard_constraints:
        judge="reference|reward",
    conda:
        "../envs/cpu/score.yaml"
    threads: 1
    resources:
        mem_mb=3_000,
        runtime=120,
    params:
        start=START,
        judge=lambda wildcards: JUDGE_FLAGS[wildcards.judge],
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.judge_mt_bench \
            --questions {input.questions:q} \
            --answers-1 {input.answers:q} \
            --model-1 {wildcards.policy:q} \
            --answers-2 {input.start_answers:q} \
            --model-2 {params.start:q} \
            --judge {wildcards.judge:q} \
            {params.judge} \
            --out {output.judgments:q}
        """

# a reward's model -> results/benchmarks/{benchmark}/{reward}.json, scores/{reward}.jsonl
# config: benchmarks of the kind reward_bench, rewards, seed


rule evaluate_reward:
    """Evaluate the model of a reward on answers that are known to be right or wrong."""
    input:
        unpack(lambda wildcards: rewarded_by(wildcards.reward)),
        data=get_questions,
    output:
        scores="results/benchmarks/{benchmark}/scores/{reward}.jsonl",
        results="results/benchmarks/{benchmark}/{reward}.json",
    log:
        "logs/evaluate_reward/{benchmark}/{reward}.txt",
    benchmark:
        "logs/evaluate_reward/{benchmark}/{reward}.tsv"
    wildcard_constraints:
        benchmark=of_kind(BENCHMARKS, "reward_bench"),
        reward=of_kind(REWARDS, "classifier", "pairwise"),
    conda:
        "../envs/cpu/score.yaml"
    resources:
        gpu=1,
        nodes=1,
        mem_mb=per_attempt(3_000),
        runtime=240,
        batch_tokens=16384,
    params:
        code=code_of("evaluate_reward"),
        contents=lambda wildcards: contents_of(questions_of(wildcards.benchmark)),
        settings=lambda wildcards: flags(
            section(f"rewards.{wildcards.reward}", "kind", "dtype"),
            head_weights=REWARDS[wildcards.reward].get("head_weights"),
            opponents=REWARDS[wildcards.reward].get("opponents", 0),
            seed=config["seed"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.benchmarks.evaluate_reward \
            --data {input.data:q} \
            --benchmark {wildcards.benchmark:q} \
            --reward {wildcards.reward:q} \
            --model {input.model:q} \
            --batch-tokens {resources.batch_tokens:q} \
            {params.settings} \
            --journal work/journal \
            --scores {output.scores:q} \
            --out {output.results:q}
        """

# results/samples/{policy}/completions/{shard}.parquet -> results/samples/{policy}/rewards/{reward}/{shard}.parquet
#
# One rule for each kind of reward that the config may name.


rule score_completions:
    """Score each completion with a reward model."""
    input:
        unpack(get_reward_model),
        prompts="results/samples/{policy}/prompts/{shard}.parquet",
        completions="results/samples/{policy}/completions/{shard}.parquet",
    output:
        rewards="results/samples/{policy}/rewards/{reward}/{shard}.parquet",
    log:
        "logs/{policy}/score_completions/{reward}/{shard}.txt",
    benchmark:
        "benchmarks/{policy}/score_completions/{reward}/{shard}.tsv"
    wildcard_constraints:
        reward=rewards_of_kind("classifier"),
    conda:
        "../envs/cpu/score.yaml"
    threads: 1
    resources:
        gpu=1,
        nodes=1,
        mem_mb=per_attempt(3_000),
        runtime=240,
        batch_tokens=16384,
    params:
        code=code_of("score_completions"),
        settings=lambda wildcards: flags(reward_settings(wildcards, "dtype", "head_weights")),
        script="score_completions",
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.lease_gpus {resources.gpu:q} python -m scripts.{params.script} \
            --prompts {input.prompts:q} \
            --completions {input.completions:q} \
            --model {input.model:q} \
            --batch-tokens {resources.batch_tokens:q} \
            {params.settings} \
            --journal work/journal \
            --out {output.rewards:q}
        """


rule check_completions:
    """Reward each completion by a function of the config's."""
    input:
        prompts="results/samples/{policy}/prompts/{shard}.parquet",
        completions="results/samples/{policy}/completions/{shard}.parquet",
        function=lambda wildcards: ancient(function_file(wildcards.reward)),
    output:
        rewards="results/samples/{policy}/rewards/{reward}/{shard}.parquet",
    log:
        "logs/{policy}/check_completions/{reward}/{shard}.txt",
    benchmark:
        "benchmarks/{policy}/check_completions/{reward}/{shard}.tsv"
    wildcard_constraints:
        reward=rewards_of_kind("function"),
    conda:
        "../envs/cpu/data.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2_000),
        runtime=60,
    params:
        code=code_of("check_completions"),
        function_code=lambda wildcards: code_hash(function_file(wildcards.reward)),
        settings=lambda wildcards: flags(reward_settings(wildcards, "function", "arguments")),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.check_completions \
            --prompts {input.prompts:q} \
            --completions {input.completions:q} \
            {params.settings} \
            --out {output.rewards:q}
        """

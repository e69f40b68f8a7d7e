# results/samples/{policy}/completions/{shard}.parquet -> results/samples/{policy}/rewards/{reward}/{shard}.parquet
# One rule for each kind of reward. config: rewards, endpoints, seed


rule score_completions:
    """Score each completion with a reward model."""
    input:
        unpack(lambda wildcards: rewarded_by(wildcards.reward)),
        prompts="results/samples/{policy}/prompts/{shard}.parquet",
        completions="results/samples/{policy}/completions/{shard}.parquet",
    output:
        rewards="results/samples/{policy}/rewards/{reward}/{shard}.parquet",
    log:
        "logs/{policy}/score_completions/{reward}/{shard}.txt",
    benchmark:
        "logs/{policy}/score_completions/{reward}/{shard}.tsv"
    wildcard_constraints:
        reward=of_kind(REWARDS, "classifier"),
    conda:
        "../envs/cpu/score.yaml"
    resources:
        gpu=1,
        nodes=1,
        mem_mb=per_attempt(3_000),
        runtime=240,
        batch_tokens=16384,
    params:
        code=code_of("score_completions"),
        settings=lambda wildcards: flags(section(f"rewards.{wildcards.reward}", "dtype", "head_weights")),
        script="score_completions",
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.rewards.{params.script} \
            --prompts {input.prompts:q} \
            --completions {input.completions:q} \
            --model {input.model:q} \
            --batch-tokens {resources.batch_tokens:q} \
            {params.settings} \
            --journal work/journal \
            --out {output.rewards:q}
        """


use rule score_completions as compare_completions with:
    log:
        "logs/{policy}/compare_completions/{reward}/{shard}.txt",
    benchmark:
        "logs/{policy}/compare_completions/{reward}/{shard}.tsv"
    wildcard_constraints:
        reward=of_kind(REWARDS, "pairwise"),
    params:
        code=code_of("compare_completions"),
        settings=lambda wildcards: flags(
            section(f"rewards.{wildcards.reward}", "dtype", "opponents"), seed=config["seed"]
        ),
        script="compare_completions",


rule apply_reward_function:
    """Reward each completion by a function of the config's."""
    input:
        unpack(called),
        prompts="results/samples/{policy}/prompts/{shard}.parquet",
        completions="results/samples/{policy}/completions/{shard}.parquet",
    output:
        rewards="results/samples/{policy}/rewards/{reward}/{shard}.parquet",
    log:
        "logs/{policy}/apply_reward_function/{reward}/{shard}.txt",
    benchmark:
        "logs/{policy}/apply_reward_function/{reward}/{shard}.tsv"
    wildcard_constraints:
        reward=of_kind(REWARDS, "function"),
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(2_000),
        runtime=60,
    params:
        code=code_of("apply_reward_function"),
        own_code=lambda wildcards: own_code_of(functions_of(wildcards.reward)),
        settings=lambda wildcards: flags(section(f"rewards.{wildcards.reward}", "function", "arguments")),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.rewards.apply_reward_function \
            --prompts {input.prompts:q} \
            --completions {input.completions:q} \
            {params.settings} \
            --out {output.rewards:q}
        """


rule rate_completions:
    """Have a language model rate each completion by a rubric."""
    input:
        unpack(lambda wildcards: rewarded_by(wildcards.reward)),
        prompts="results/samples/{policy}/prompts/{shard}.parquet",
        completions="results/samples/{policy}/completions/{shard}.parquet",
        rubric=lambda wildcards: ancient(REWARDS[wildcards.reward]["rubric"]),
    output:
        rewards="results/samples/{policy}/rewards/{reward}/{shard}.parquet",
    log:
        "logs/{policy}/rate_completions/{reward}/{shard}.txt",
    benchmark:
        "logs/{policy}/rate_completions/{reward}/{shard}.tsv"
    wildcard_constraints:
        reward=of_kind(REWARDS, "judge"),
    conda:
        "../envs/cpu/generate.yaml"
    resources:
        **asking(lambda wildcards: REWARDS[wildcards.reward]["endpoint"]) | {"batch_size": 64},
        runtime=240,
    params:
        code=code_of("rate_completions"),
        contents=lambda wildcards: contents_of(REWARDS[wildcards.reward]["rubric"]),
        model=lambda wildcards, input: input.get("model", ""),
        endpoint=lambda wildcards: flags(endpoints.counted(REWARDS[wildcards.reward]["endpoint"])),
        settings=lambda wildcards: flags(
            section(f"rewards.{wildcards.reward}", "lowest", "highest", "max_tokens"), seed=config["seed"]
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.rewards.rate_completions \
            --prompts {input.prompts:q} \
            --completions {input.completions:q} \
            --rubric {input.rubric:q} \
            --model={params.model:q} \
            {params.settings} \
            --journal work/journal \
            --out {output.rewards:q} \
            """ + (ENGINE_FLAGS)


for policy in SAMPLED:

    # A name for all rewards that are needed of a policy: `snakemake rewards_sft`.
    rule:
        name:
            f"rewards_{policy}".replace("-", "_")
        input:
            expand(
                f"results/samples/{policy}/rewards/{{reward}}/{{shard}}.parquet",
                reward=rewards_of(policy),
                shard=shards_of(policy, "rewards"),
            ),

# a reward's finished model -> results/checks/rewards/{reward}.json
# config: rewards


rule check_reward:
    """Score a good and a bad answer with the model of {wildcards.reward}."""
    input:
        unpack(lambda wildcards: served(REWARDS[wildcards.reward])),
    output:
        found="results/checks/rewards/{reward}.json",
    log:
        "logs/check_reward/{reward}.txt",
    benchmark:
        "logs/check_reward/{reward}.tsv"
    wildcard_constraints:
        reward="|".join(FINISHED_REWARDS) or "(?!)",
    conda:
        "../envs/cpu/score.yaml"
    resources:
        gpu=1,
        nodes=1,
        mem_mb=per_attempt(3_000),
        runtime=60,
        batch_tokens=16384,
    params:
        code=code_of("check_reward"),
        settings=lambda wildcards: flags(
            section(f"rewards.{wildcards.reward}", "kind", "dtype"),
            head_weights=REWARDS[wildcards.reward].get("head_weights"),
            reward=wildcards.reward,
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.checks.check_reward \
            --model {input.model:q} \
            --batch-tokens {resources.batch_tokens:q} \
            {params.settings} \
            --out {output.found:q}
        """

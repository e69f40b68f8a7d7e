# Training on the rewards of completions sampled during training (methods ppo, rloo, grpo), without pairs.
#
#     results/samples/{policy}/prompts/{shard}.parquet, what scores completions
#  -> results/models/{run}-{t}/ and .json, results/training/{run}-{t}/metrics.json and log.csv
#  of  train, online, runs, training_defaults, rewards, endpoints, rank.length_penalty, seed
#
# With `peft`, results/adapters/{run}-{t}/ and .json instead, for merge_adapter.


rule train_online:
    """Train a policy on the rewards of completions that it samples, starting from the run's `init`."""
    input:
        prompts=get_prompts,
        model=ancient(get_init),
        manifest=lambda wildcards: f"{get_init(wildcards)}.json",
        reference=ancient(get_reference),
        reference_manifest=lambda wildcards: f"{get_reference(wildcards)}.json",
        reward_models=ancient(models_of_rewards()),
        reward_manifests=[f"{model}.json" for model in models_of_rewards()],
        read=ancient(imports.own_modules(*functions_of(*REWARDS)) + rubrics()),
        checked=checks_of_references(*REWARDS),
    output:
        model=directory("results/models/{run}-{iteration}"),
        manifest="results/models/{run}-{iteration}.json",
        metrics="results/training/{run}-{iteration}/metrics.json",
        log_csv="results/training/{run}-{iteration}/log.csv",
    log:
        "logs/{run}-{iteration}/train_online.txt",
    benchmark:
        "logs/{run}-{iteration}/train_online.tsv"
    wildcard_constraints:
        run=runs_of_methods("ppo", "rloo", "grpo"),
    conda:
        "../envs/cpu/online.yaml"
    resources:
        **TRAINING,
        mem_mb=per_attempt(4_000),
        runtime=1440,
        per_device_train_batch_size=128,
        save_steps=50,
        batch_tokens=16384,
        endpoints=json.dumps(
            {name: section["endpoint"] for name, section in REWARDS.items() if "endpoint" in section}
        ),
        judge_batch_size=64,
        gpu_memory_percent=35,
    params:
        code=code_of("train_online"),
        own_code=own_code_of(functions_of(*REWARDS)),
        contents=contents_of(*rubrics()),
        prompts=lambda wildcards: [
            f"results/samples/{policy}/prompts" for policy in get_data_policies(wildcards)
        ],
        settings=lambda wildcards: flags(
            configuration.of_job(configuration.training(config, wildcards.run)),
            section("rank", "length_penalty"),
            method=configuration.method_of(config, wildcards.run),
            rewards={name: scoring(section) for name, section in sorted(REWARDS.items())},
            shards=number_of_shards(),
            seed=RUNS[wildcards.run]["seed"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} \
            python -m prefline.machine.launch {resources.parallel:q} scripts.train.train_online \
            --prompts {params.prompts:q} \
            --model {input.model:q} \
            --reference {input.reference:q} \
            --reward-models {input.reward_models:q} \
            {params.settings} \
            --endpoints {resources.endpoints:q} \
            --judge-batch-size {resources.judge_batch_size:q} \
            --gpu-memory-percent {resources.gpu_memory_percent:q} \
            --batch-tokens {resources.batch_tokens:q} \
            --journal work/journal \
            --work-dir work/train_online \
            """ + (TRAINING_FLAGS)


use rule train_online as train_online_adapter with:
    output:
        model=directory("results/adapters/{run}-{iteration}"),
        manifest="results/adapters/{run}-{iteration}.json",
        metrics="results/training/{run}-{iteration}/metrics.json",
        log_csv="results/training/{run}-{iteration}/log.csv",
    wildcard_constraints:
        run=runs_of_methods("rloo", "grpo", adapters=True),

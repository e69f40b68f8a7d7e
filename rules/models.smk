# Finished models, and models merged from trained adapters.
#
#     a directory or the hub -> results/fetched/{model}/, results/models/{model} (a link to it) and .json
#     results/adapters/{model}/, what their training started from -> results/models/{model}/ and .json
#  of  models; of merge_adapter: the key merge_into of `peft` in models.NAME.training, train and runs
#
# models_train.smk trains the others; policies of runs are made by train.smk and train_online.smk.

ADAPTED = [model for model in [*config["models"], *TRAINED] if peft_of(model)]
FETCHED = [name for name, model in config["models"].items() if model["source"] is not None]


rule fetch_model:
    """Take the finished model that the config names as the source of {wildcards.model}."""
    input:
        source=ancient(source_files),
    output:
        model=directory("results/models/{model}"),
        manifest="results/models/{model}.json",
    log:
        "logs/fetch_model/{model}.txt",
    benchmark:
        "logs/fetch_model/{model}.tsv"
    wildcard_constraints:
        model="|".join(FETCHED) or "(?!)",
    priority: 50  # a model that cannot serve is found before others work
    conda:
        "../envs/cpu/score.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * max(1_000, derive.to_fetch(config, wildcards.model)),
        runtime=120,
    params:
        code=code_of("fetch_model"),
        contents=lambda wildcards: contents_of(*source_files(wildcards)),
        settings=lambda wildcards: flags(
            source=config["models"][wildcards.model]["source"],
            chat_template=config["models"][wildcards.model].get("chat_template"),
            chat_template_kwargs=config["models"][wildcards.model].get("chat_template_kwargs"),
            system_message=config["models"][wildcards.model].get("system_message", "own"),
            reasoning_markers=config["models"][wildcards.model].get("reasoning_markers"),
            date=date_of(wildcards.model),
            remote_code=config["models"][wildcards.model].get("remote_code", False),
            pickled_weights=config["models"][wildcards.model].get("pickled_weights", False),
            rewards=rewards_of_model(wildcards.model),
            random_weights=wildcards.model not in ANSWERING,
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.models.fetch_model \
            {params.settings} \
            --out results/fetched/{wildcards.model:q} \
            --link {output.model:q} \
            --manifest {output.manifest:q}
        """


rule merge_adapter:
    """Add adapters to the weights that their training started from."""
    input:
        adapter=ancient("results/adapters/{model}"),
        adapter_manifest="results/adapters/{model}.json",
        model=ancient(get_start),
        manifest=lambda wildcards: f"{get_start(wildcards)}.json",
    output:
        model=directory("results/models/{model}"),
        manifest="results/models/{model}.json",
    log:
        "logs/merge_adapter/{model}.txt",
    benchmark:
        "logs/merge_adapter/{model}.tsv"
    wildcard_constraints:
        model="|".join(ADAPTED) or "(?!)",
    conda:
        "../envs/cpu/train.yaml"
    resources:
        gpu=1,
        nodes=1,
        mem_mb=per_attempt(3_000),
        runtime=120,
    params:
        code=code_of("merge_adapter"),
        merge_into=lambda wildcards: peft_of(wildcards.model).get("merge_into", "original"),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.models.merge_adapter \
            --adapter {input.adapter:q} \
            --model {input.model:q} \
            --merge-into {params.merge_into:q} \
            --work-dir work/merge_adapter \
            --out {output.model:q} \
            --manifest {output.manifest:q}
        """

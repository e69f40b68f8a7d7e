# results/adapters/{model}/ -> results/models/{model}/ and .json
#
# Models and policies whose training has `peft`; how far each is from what was trained, its merge.json says.

ADAPTED = [model for model in [*config["models"], *TRAINED] if peft_of(model)]


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
    threads: 1
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
            --out {output.model:q} \
            --manifest {output.manifest:q}
        """

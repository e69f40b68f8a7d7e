# a GPU of the machine kind of later jobs -> results/checks/device/gpu.json
#
# An input of check_model where Snakemake may give jobs a GPU. It runs again after a change of the driver, torch,
# vLLM or machine.gpu_memory.


rule check_device:
    """Have a job with a GPU tell whether torch and vLLM can use it."""
    output:
        found=CHECK_OF_DEVICE,
    log:
        "logs/check_device.txt",
    benchmark:
        "logs/check_device.tsv"
    conda:
        "../envs/cpu/generate.yaml"
    resources:
        gpu=1,
        nodes=1,
        mem_mb=per_attempt(2_000),
        runtime=30,
    params:
        code=code_of("check_device"),
        versions=lambda wildcards: device.versions(),
        needs_vllm="--needs-vllm" if needs_vllm() else "",
        settings=flags(gpu_memory=MACHINE_SETTINGS["gpu_memory"]),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.checks.check_device \
            {params.needs_vllm} {params.settings} \
            --out {output.found:q}
        """

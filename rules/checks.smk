# Cheap jobs that run before expensive ones: what they find stops the workflow before it costs anything.
#
#     data of a model, the prompts, given pairs or the vibe check -> results/checks/data/{checked}.json
#     results/models/{model}, its data -> results/checks/models/{model}.json
#     a reward's finished model        -> results/checks/rewards/{reward}.json: checks_rewards.smk
#     a judge's prompts and endpoint                              -> results/checks/endpoints/{asker}.json
#     a GPU, if jobs may get one       -> results/checks/device/gpu.json: checks_device.smk
#     references of prompts, problems  -> results/checks/references/, problems/: checks_problems.smk
#  of  data, endpoints, and the sections that name data or endpoints
#
# Each is an input of the job that it protects. While a plan has checks to run, no other job starts, and a failed
# check does not end the others: prefline/machine/checks.py. check_data runs again when the job that reads the
# same data must, no oftener; the others are `ancient`, and an edit runs only the check again.


rule check_data:
    """Read the first rows of the data of {wildcards.checked}."""
    input:
        data=ancient(checked_files),
    output:
        counts="results/checks/data/{checked}.json",
    log:
        "logs/check_data/{checked}.txt",
    benchmark:
        "logs/check_data/{checked}.tsv"
    wildcard_constraints:
        checked="|".join([*configuration.ENTRANCES, "prompts", "preferences", "vibe_check"]),
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(2_000),
        runtime=30,
    params:
        code=code_of("check_data"),
        contents=lambda wildcards: contents_of(*checked_files(wildcards)),
        section=lambda wildcards: checked_section(wildcards.checked),
        settings=lambda wildcards: flags(section("data"), data=checked(wildcards.checked)),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.checks.check_data \
            {params.settings} \
            --name {params.section:q} \
            --out {output.counts:q}
        """


rule check_model:
    """Render the first rows of all data with the chat template of {wildcards.model}."""
    input:
        model=ancient("results/models/{model}"),
        manifest="results/models/{model}.json",
        data=ancient(rendered_files),
        device=check_of_device,
        server=check_of_endpoint("generate"),
    output:
        found="results/checks/models/{model}.json",
    log:
        "logs/check_model/{model}.txt",
    benchmark:
        "logs/check_model/{model}.tsv"
    wildcard_constraints:
        model="|".join(ROOTS),
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(2_000),
        runtime=30,
    params:
        code=code_of("check_model"),
        contents=lambda wildcards: contents_of(*rendered_files(wildcards)),
        settings=lambda wildcards: flags(
            section("data"), name=wildcards.model, data=rendered_data(wildcards.model)
        ),
        policy=lambda wildcards: policy_flags(wildcards.model),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.checks.check_model \
            --model {input.model:q} \
            {params.settings} {params.policy} \
            --out {output.found:q}
        """


rule check_endpoint:
    """Ask the endpoint of {wildcards.asker} once, in the form of its jobs."""
    input:
        files=ancient(trial_files),
    output:
        found="results/checks/endpoints/{asker}.json",
    log:
        "logs/check_endpoint/{asker}.txt",
    benchmark:
        "logs/check_endpoint/{asker}.tsv"
    wildcard_constraints:
        asker="|".join(HOSTED) or "(?!)",
    conda:
        "../envs/cpu/generate.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("check_endpoint"),
        contents=lambda wildcards: contents_of(*trial_files(wildcards)),
        settings=lambda wildcards: flags(
            section(wildcards.asker, "endpoint", "max_tokens"),
            trial=trial_of(wildcards.asker),
            asker=wildcards.asker,
            seed=config["seed"],
        ),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.checks.check_endpoint \
            {params.settings} \
            --journal work/journal \
            --out {output.found:q}
        """


# `snakemake checks` runs these jobs alone, and prints a table of them.
rule checks:
    """Print what all checks found."""
    input:
        device=check_of_device,
        passed=CHECKED,
    log:
        "logs/checks.txt",
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=10,
    params:
        code=code_of("checks"),
        skipped=lambda wildcards: json.dumps(skipped()),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.checks.checks \
            --passed {input.device:q} {input.passed:q} \
            --skipped {params.skipped:q} \
            --out results/checks/table.txt
        """

# results/training/{trained}/log.csv, metrics.json -> results/training/{trained}/training.png


rule plot_training:
    """Draw the course of a training."""
    input:
        log_csv="results/training/{trained}/log.csv",
        metrics="results/training/{trained}/metrics.json",
    output:
        picture="results/training/{trained}/training.png",
    log:
        "logs/{trained}/plot_training.txt",
    benchmark:
        "logs/{trained}/plot_training.tsv"
    wildcard_constraints:
        trained="|".join(TRAININGS),
    conda:
        "../envs/cpu/report.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("plot_training"),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.train.plot_training \
            --name {wildcards.trained:q} \
            --log-csv {input.log_csv:q} \
            --metrics {input.metrics:q} \
            --out {output.picture:q}
        """

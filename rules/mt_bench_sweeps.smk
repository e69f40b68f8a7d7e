# results/winrate.json -> results/mt_bench/sweeps.png
# config: runs (sweep)


rule plot_sweeps:
    """Draw the win rates of each sweep against its values."""
    input:
        winrate=swept_winrate,
    output:
        picture=report(f"{FINAL}/mt_bench/sweeps.png", caption="captions/sweeps.rst", category="Results"),
    log:
        "logs/plot_sweeps.txt",
    benchmark:
        "logs/plot_sweeps.tsv"
    conda:
        "../envs/cpu/report.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("plot_sweeps"),
        sweeps=json.dumps(SWEEPS),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.mt_bench.plot_sweeps \
            --winrate {input.winrate:q} \
            --sweeps {params.sweeps:q} \
            --out {output.picture:q}
        """

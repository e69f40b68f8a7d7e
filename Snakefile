# Preference optimization of language models, from raw text to a picture of win rates.
# All values are in config.yaml. Each of its sections has a file under rules/; only the first and the last
# include have a fixed place.

from snakemake.utils import min_version

min_version("9.0")


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/checks.smk"
include: "rules/checks_annotators.smk"
include: "rules/checks_device.smk"
include: "rules/checks_problems.smk"
include: "rules/checks_rewards.smk"
include: "rules/models.smk"
include: "rules/models_train.smk"
include: "rules/prompts.smk"
include: "rules/generate.smk"
include: "rules/rewards.smk"
include: "rules/rank.smk"
include: "rules/tokenize.smk"
include: "rules/logps.smk"
include: "rules/train.smk"
include: "rules/train_online.smk"
include: "rules/train_plots.smk"
include: "rules/mt_bench.smk"
include: "rules/vibe_check.smk"
include: "rules/benchmarks.smk"
include: "rules/report.smk"
include: "rules/publish.smk"
include: "rules/jobs.smk"
include: "rules/machine.smk"
include: "rules/finish.smk"


# dvc.yaml has a stage for each of the following targets, which together are all that people read.
rule policies:
    """Check the config's models, data and servers; then make every policy, with its data and curves."""
    input:
        CHECKED,
        expand("results/training/{trained}/training.png", trained=TRAININGS),
        expand("results/training/{policy}/drift.json", policy=TRAINED),
        expand("results/samples/{policy}/rewards.png", policy=RANKED),


rule mt_bench:
    """Make the win rates and the vibe check."""
    input:
        evaluations(),
        f"{FINAL}/vibe_check.md",


rule benchmarks:
    """Make the tables of the benchmarks that the config names."""
    input:
        BENCHMARK_TABLES,


rule report:
    """Make the report, the model cards and the picture of drift."""
    input:
        [f"{FINAL}/report.html"] if COMPARED else [],
        [f"{FINAL}/drift.png"] if TRAINED else [],
        expand(f"{FINAL}/cards/{{policy}}.md", policy=TRAINED),
        PAIRS_CARDS,


rule all:
    """Make everything that people read: pictures, tables, pages and the report."""
    default_target: True
    input:
        rules.policies.input,
        rules.mt_bench.input,
        rules.benchmarks.input,
        rules.report.input,

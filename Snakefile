# Preference optimization of language models, from raw text to a picture of win rates.
# Every value stands in config.yaml; one file under rules/ for each of its sections, in any order but for the
# first and the last.

from snakemake.utils import min_version

min_version("9.0")


configfile: "config.yaml"


include: "rules/common.smk"
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
include: "rules/finish.smk"


rule all:
    """Everything that one would want to look at."""
    default_target: True
    input:
        "results/report.html",
        evaluations(),
        "results/vibe_check.md",
        BENCHMARK_TABLES,
        "results/drift.png",
        expand("results/samples/{policy}/rewards.png", policy=RANKED),
        expand("results/training/{trained}/training.png", trained=TRAININGS),
        expand("results/cards/{policy}.md", policy=TRAINED),

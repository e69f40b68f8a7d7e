# results/mt_bench/judgments/{judge}/{match}.jsonl        -> results/winrate.json, .csv, results/metrics/{policy}.json
# results/winrate.json                                    -> results/winrate.png
# results/mt_bench/judgments/{judge}/{policy}_single.jsonl -> results/mt_bench/ratings.json, .csv
# a judge's judgments                                     -> results/mt_bench/model_judgment/{judge}_{mode}.jsonl
# config: mt_bench (questions, modes, judge, bootstrap_samples), seed


rule compute_winrate:
    """Compute every policy's win rate against the start policy, with its interval."""
    input:
        questions=ancient(mt_bench_file("questions")),
        judgments=judgments(JUDGES[0], COMPARED),
        other_judgments=[path for judge in JUDGES[1:] for path in judgments(judge, COMPARED)],
        pairs=judgments(JUDGES[0], [match for match in JUDGED if match not in COMPARED]),
        answers=expand("results/mt_bench/answers/{policy}.jsonl", policy=COMPARED),
        start_answers=start_answers,
    output:
        json=f"{FINAL}/winrate.json",
        csv=f"{FINAL}/winrate.csv",
        metrics=directory(f"{FINAL}/metrics"),
    log:
        "logs/compute_winrate.txt",
    benchmark:
        "logs/compute_winrate.tsv"
    conda:
        "../envs/cpu/report.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("compute_winrate"),
        contents=contents_of(config["mt_bench"]["questions"]),
        settings=lambda _: flags(section("mt_bench", "max_lost", "bootstrap_samples"), seed=config["seed"]),
        policies=COMPARED,
        other_judges=JUDGES[1:],
        start=START,
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.mt_bench.compute_winrate \
            --questions {input.questions:q} \
            --policies {params.policies:q} \
            --judgments {input.judgments:q} \
            --other-judges {params.other_judges:q} \
            --other-judgments {input.other_judgments:q} \
            --pairs {input.pairs:q} \
            --answers {input.answers:q} \
            --start {params.start:q} \
            --start-answers {input.start_answers:q} \
            {params.settings} \
            --out {output.json:q} \
            --csv {output.csv:q} \
            --metrics {output.metrics:q}
        """


rule plot_winrate:
    """Draw the win rates."""
    input:
        winrate=f"{FINAL}/winrate.json",
        config=EXPERIMENT_CONFIG,  # goes with the picture, for comparisons
    output:
        picture=report(f"{FINAL}/winrate.png", caption="captions/winrate.rst", category="Results"),
    log:
        "logs/plot_winrate.txt",
    benchmark:
        "logs/plot_winrate.tsv"
    conda:
        "../envs/cpu/report.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("plot_winrate"),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.mt_bench.plot_winrate \
            --winrate {input.winrate:q} \
            --out {output.picture:q}
        """


rule compute_ratings:
    """Compute every policy's mean rating, with its interval."""
    input:
        questions=ancient(mt_bench_file("questions")),
        ratings=[path for judge in JUDGES for path in judgments(judge, SINGLE)],
    output:
        json=f"{FINAL}/mt_bench/ratings.json",
        csv=f"{FINAL}/mt_bench/ratings.csv",
    log:
        "logs/compute_ratings.txt",
    benchmark:
        "logs/compute_ratings.tsv"
    conda:
        "../envs/cpu/report.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("compute_ratings"),
        contents=contents_of(config["mt_bench"]["questions"]),
        policies=POLICIES,
        judges=JUDGES,
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.mt_bench.compute_ratings \
            --questions {input.questions:q} \
            --policies {params.policies:q} \
            --judges {params.judges:q} \
            --ratings {input.ratings:q} \
            --out {output.json:q} \
            --csv {output.csv:q}
        """


rule merge_judgments:
    """Put all matches, or all ratings, of a judge into the one file that FastChat's show_result reads."""
    input:
        judgments=lambda wildcards: judgments(
            wildcards.judge, JUDGED if wildcards.mode == "pair" else list(SINGLE)
        ),
    output:
        merged=f"{FINAL}/mt_bench/model_judgment/{{judge}}_{{mode}}.jsonl",
    log:
        "logs/merge_judgments/{judge}_{mode}.txt",
    benchmark:
        "logs/merge_judgments/{judge}_{mode}.tsv"
    wildcard_constraints:
        mode="pair|single",
    conda:
        "../envs/cpu/data.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("merge_judgments"),
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.mt_bench.merge_judgments \
            --judgments {input.judgments:q} \
            --out {output.merged:q}
        """

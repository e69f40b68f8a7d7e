# policies' answers   -> results/mt_bench/judgments/{judge}/{match}.jsonl, of judges that are language models
# config: mt_bench (questions, references, corrections, judge_prompts, modes, judge, judges), endpoints, seed


rule ask_judge:
    """Have a language model compare two policies' answers in both orders, or rate one policy's."""
    input:
        unpack(lambda wildcards: served(LLM_JUDGES[wildcards.judge])),
        checked=lambda wildcards: check_of_endpoint(f"mt_bench.judges.{wildcards.judge}"),
        questions=ancient(mt_bench_file("questions")),
        references=ancient(mt_bench_file("references")),
        judge_prompts=ancient(mt_bench_file("judge_prompts")),
        answers=get_answers,
    output:
        judgments="results/mt_bench/judgments/{judge}/{match}.jsonl",
    log:
        "logs/{match}/ask_judge/{judge}.txt",
    benchmark:
        "logs/{match}/ask_judge/{judge}.tsv"
    wildcard_constraints:
        judge="|".join(LLM_JUDGES) or "(?!)",
    conda:
        "../envs/cpu/generate.yaml"
    resources:
        **asking(lambda wildcards: LLM_JUDGES[wildcards.judge]["endpoint"]) | {"batch_size": 16},
        runtime=480,
    params:
        code=code_of("ask_judge"),
        contents=contents_of(*mt_bench_files()),
        model=lambda wildcards, input: input.get("model", ""),
        endpoint=lambda wildcards: flags(endpoints.counted(LLM_JUDGES[wildcards.judge]["endpoint"])),
        settings=lambda wildcards: flags(
            section(f"mt_bench.judges.{wildcards.judge}", "max_tokens"),
            section("mt_bench", "verdicts"),
            seed=config["seed"],
        ),
        models=lambda wildcards: [name for name in (MATCHES | SINGLE)[wildcards.match] if name],
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m prefline.machine.lease_gpus {resources.gpu:q} python -m scripts.mt_bench.ask_judge \
            --questions {input.questions:q} \
            --references {input.references:q} \
            --judge-prompts {input.judge_prompts:q} \
            --answers {input.answers:q} \
            --models {params.models:q} \
            --judge {wildcards.judge:q} \
            --model={params.model:q} \
            {params.settings} \
            --journal work/journal \
            --out {output.judgments:q} \
            """ + (ENGINE_FLAGS)


# `snakemake judging_costs` prints the number and cost of the judges' calls before they are made.
rule judging_costs:
    """Print how many calls the judges need, and what they may cost."""
    input:
        questions=ancient(mt_bench_file("questions")),
        references=ancient(mt_bench_file("references")),
        judge_prompts=ancient(mt_bench_file("judge_prompts")),
        answers=expand("results/mt_bench/answers/{policy}.jsonl", policy=POLICIES),
    log:
        "logs/judging_costs.txt",
    conda:
        "../envs/cpu/generate.yaml"
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        judges=json.dumps({name: LLM_JUDGES[name] for name in PAID}),
        matches=json.dumps({name: matches_of(name) for name in PAID}),
        seed=config["seed"],
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.mt_bench.judging_costs \
            --questions {input.questions:q} \
            --references {input.references:q} \
            --judge-prompts {input.judge_prompts:q} \
            --answers results/mt_bench/answers \
            --judges {params.judges:q} \
            --matches {params.matches:q} \
            --seed {params.seed:q} \
            --journal work/journal
        """

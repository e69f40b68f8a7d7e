# an address in mt_bench -> results/mt_bench/data/{file}.jsonl
# policies' answers      -> results/mt_bench/judgments/{judge}/{match}.jsonl
# a judge's judgments    -> results/mt_bench/model_judgment/{judge}_{mode}.jsonl
#
# Language models that judge, and files from elsewhere; judges without a language model stand in mt_bench.smk.


rule fetch_mt_bench:
    """Fetch questions, references or judge prompts from their public source."""
    output:
        file="results/mt_bench/data/{file}.jsonl",
    log:
        "logs/fetch_mt_bench/{file}.txt",
    benchmark:
        "logs/fetch_mt_bench/{file}.tsv"
    wildcard_constraints:
        file="questions|references|judge_prompts",
    conda:
        "../envs/cpu/data.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1_000),
        runtime=30,
    params:
        code=code_of("fetch_mt_bench"),
        source=lambda wildcards: config["mt_bench"][wildcards.file],
    shell:
        r"""
        exec &> >(tee {log:q})

        exec python -m scripts.mt_bench.fetch_mt_bench \
            --source {params.source:q} \
            --out {output.file:q}
        """


rule ask_judge:
    """Have a language model compare two policies' answers in both orders, or rate one policy's."""
    input:
        unpack(get_judge_model),
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
    threads: 1
    resources:
        gpu=lambda wildcards: 0 if LLM_JUDGES[wildcards.judge]["servers"] else 1,
        nodes=1,
        mem_mb=per_attempt(3_000),
        runtime=480,
        batch_size=16,
        tensor_parallel_size=1,
        gpu_memory_percent=90,
        max_num_batched_tokens=0,
        server_timeout=600,
        servers=lambda wildcards: LLM_JUDGES[wildcards.judge]["servers"] or "",
        key_variable=of_judge("key_variable"),
        requests_per_minute=of_judge("requests_per_minute"),
        tokens_per_minute=of_judge("tokens_per_minute"),
        input_price=of_judge("input_price"),
        output_price=of_judge("output_price"),
        max_calls=of_judge("max_calls"),
        max_cost=of_judge("max_cost"),
    params:
        code=code_of("ask_judge"),
        contents=contents_of(*section("mt_bench", "questions", "references", "judge_prompts").values()),
        model=lambda wildcards, input: input.get("model", ""),
        settings=judge_settings,
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
            --servers={resources.servers:q} \
            --server-timeout {resources.server_timeout:q} \
            --key-variable {resources.key_variable:q} \
            --requests-per-minute {resources.requests_per_minute:q} \
            --tokens-per-minute {resources.tokens_per_minute:q} \
            --input-price {resources.input_price:q} \
            --output-price {resources.output_price:q} \
            --max-calls {resources.max_calls:q} \
            --max-cost {resources.max_cost:q} \
            --batch-size {resources.batch_size:q} \
            --tensor-parallel-size {resources.tensor_parallel_size:q} \
            --gpu-memory-percent {resources.gpu_memory_percent:q} \
            --max-num-batched-tokens {resources.max_num_batched_tokens:q} \
            --journal work/journal \
            --out {output.judgments:q}
        """


rule merge_judgments:
    """Put all matches, or all ratings, of a judge into the one file that FastChat's show_result reads."""
    input:
        judgments=lambda wildcards: judgments(
            wildcards.judge, JUDGED if wildcards.mode == "pair" else list(SINGLE)
        ),
    output:
        merged="results/mt_bench/model_judgment/{judge}_{mode}.jsonl",
    log:
        "logs/merge_judgments/{judge}_{mode}.txt",
    benchmark:
        "logs/merge_judgments/{judge}_{mode}.tsv"
    wildcard_constraints:
        mode="pair|single",
    conda:
        "../envs/cpu/data.yaml"
    threads: 1
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


# `snakemake judging_costs`: what the judges would be asked and cost, before they are.
rule judging_costs:
    """Say how many calls the judges would be, and what they may cost."""
    input:
        questions=ancient(mt_bench_file("questions")),
        references=ancient(mt_bench_file("references")),
        judge_prompts=ancient(mt_bench_file("judge_prompts")),
        answers=expand("results/mt_bench/answers/{policy}.jsonl", policy=POLICIES),
    log:
        "logs/judging_costs.txt",
    conda:
        "../envs/cpu/generate.yaml"
    threads: 1
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

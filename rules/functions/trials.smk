# Names, files and settings of check_endpoint, check_annotator and check_device.

# Sections that ask a language model, by their dotted paths, and their endpoints. A server that has a policy can be
# asked when there is a start policy.
ASKERS = {f"rewards.{name}": REWARDS[name] for name in REWARDS if REWARDS[name]["kind"] == "judge"}
ASKERS |= {f"mt_bench.judges.{name}": LLM_JUDGES[name] for name in JUDGES if name in LLM_JUDGES}
if not engine_gpus():
    ASKERS["generate"] = config["generate"]
# Those whose endpoint has a server now; jobs start the others' servers.
HOSTED = [
    asker
    for asker, values in ASKERS.items()
    if values["endpoint"]["urls"] and (asker != "generate" or config["models"][START]["source"])
]
# Benchmarks whose annotations a judge makes: checks_annotators.smk.
ANNOTATED = [f"benchmarks.{name}" for name in BENCHMARKS if BENCHMARKS[name]["kind"] == "alpaca_eval"]


def check_of_endpoint(asker):
    """Return the check of the endpoint that a section names, as an input; none where jobs serve the model."""
    return ancient(f"results/checks/endpoints/{asker}.json") if asker in HOSTED else []


def trial_of(asker):
    """Return what check_endpoint asks for a section, and how much its jobs ask."""
    shards_hold = config["prompts"]["num_prompts"] + config["prompts"]["num_test_prompts"]
    completions = len(RANKED) * shards_hold * config["generate"]["num_completions"]
    if asker == "generate":
        model = f"results/models/{START}"
        return {"kind": "policy", "model": model, "completions": completions, **section(asker, "seed_per")}
    if asker.startswith("rewards."):
        return {"kind": "rubric", "completions": completions, **section(asker, "rubric", "lowest", "highest")}
    sizes = [len(match) for match in matches_of(asker.removeprefix("mt_bench.judges."))]
    matches = {mode: sizes.count(size) for mode, size in (("pairwise", 2), ("single", 1)) if size in sizes}
    named = {key: mt_bench_file(key) for key in ("questions", "references", "judge_prompts")}
    return {"kind": "judge", "matches": matches, **named, **section("mt_bench", "verdicts")}


def trial_files(wildcards):
    """Return the files that a trial is made of."""
    trial = trial_of(wildcards.asker)
    named = ("model", "rubric", "questions", "references", "judge_prompts")
    return [trial[key] for key in named if key in trial]


CHECK_OF_DEVICE = "results/checks/device/gpu.json"


def check_of_device(wildcards):
    """Return the check of the GPU as an input; none where no job may get one."""
    return [] if workflow.global_resources.get("gpu").value == 0 else ancient(CHECK_OF_DEVICE)


def needs_vllm():
    """Return whether jobs run a policy or a judge by vLLM."""
    served = [one for one in ASKERS.values() if not one["endpoint"]["urls"]]
    return "vllm" in SAMPLERS or bool(engine_settings()["vllm"] or served)

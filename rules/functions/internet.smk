# The jobs that need the internet.

from prefline.data.sources import listed

# Rules whose jobs always need it, and the data that others may fetch.
ONLINE = ("fetch_mt_bench", "list_lm_eval_questions", "publish", "check_endpoint", "check_annotator")
READ = {
    "fetch_model": lambda wildcards: [config["models"][wildcards.model]["source"]],
    "check_data": lambda wildcards: [each["source"] for each in checked(wildcards.checked).values()],
    "check_references": lambda wildcards: [config["prompts"]["source"]],
    "check_problems": lambda wildcards: [BENCHMARKS[wildcards.benchmark]["source"]],
    "check_model": lambda wildcards: [each["source"] for each in rendered_data(wildcards.model).values()],
    "prepare_prompts": lambda wildcards: [config["prompts"]["source"]],
    "import_preferences": lambda wildcards: [GIVEN_PAIRS["source"]],
}


def are_remote(sources):
    """Return whether any of some sources of the config is, or has, data or a model on the hub."""
    given = [source for source in sources if source is not None]
    return any(not local_files(each["source"]) for source in given for each in listed(source))


def needs_internet(rule, wildcards):
    """Return whether a job without a GPU fetches or publishes something, or asks a server.

    rule: Snakemake's, before its resources are fitted to the machine; wildcards: the job's.
    """
    if rule.name in ONLINE or rule.name in READ and are_remote(READ[rule.name](wildcards)):
        return True
    if "endpoint" not in rule.resources:
        return False
    endpoint = json.loads(rule.resources["endpoint"].evaluate(wildcards).value)
    return endpoint is not None and bool(endpoint["urls"])

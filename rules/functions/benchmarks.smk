# Inputs and outputs of the benchmarks beside MT-Bench.

from prefline.data import benchmark_results

BENCHMARKS = config["benchmarks"]
BENCHMARK_TABLES = (
    [f"{FINAL}/benchmarks/benchmarks.csv", f"{FINAL}/benchmarks/contamination.csv"] if BENCHMARKS else []
)


def named_by(benchmark, key):
    """Return the file or folder that a benchmark's section names, None for null; fail if it is missing."""
    section = config["benchmarks"][benchmark]
    try:
        named_files.check({"benchmarks": {benchmark: {key: section[key]}}})
    except InputError as error:
        refuse(error)
    return section[key]


# The keys with what benchmarks ask, by kind.
ASKING = {"alpaca_eval": "references", "evalplus": "problems", "reward_bench": "data"}


def questions_of(benchmark):
    """Return the file of what a benchmark asks the policies or reward models."""
    if BENCHMARKS[benchmark]["kind"] == "math":
        return f"results/checks/problems/{benchmark}.jsonl"
    return BENCHMARKS[benchmark][ASKING[BENCHMARKS[benchmark]["kind"]]]


def contents_of_questions(wildcards):
    """Return a hash of that file, unless a job makes it."""
    path = questions_of(wildcards.benchmark)
    return "" if path.startswith("results/") else contents_of(path)


def benchmark_results_of(benchmark):
    """Return the results of a benchmark: of all policies, or of all rewards that are models."""
    evaluated = MODEL_REWARDS if BENCHMARKS[benchmark]["kind"] == "reward_bench" else POLICIES
    return [f"results/benchmarks/{benchmark}/{name}.json" for name in evaluated]


def get_questions(wildcards):
    """Return the same, as an input; if a published file is missing, fail with the command that gets it."""
    path = questions_of(wildcards.benchmark)
    if path.startswith("results/"):
        return path
    try:
        benchmark_results.check_there(path, BENCHMARKS[wildcards.benchmark]["kind"])
    except InputError as error:
        refuse(f"config: benchmarks.{wildcards.benchmark}: {error}")
    return ancient(path)


def task_files(benchmark):
    """Return all files of a benchmark's task folder: the tasks and their data."""
    folder = named_by(benchmark, "include_path")
    return [] if folder is None else members(folder)


def regression_data(wildcards):
    """Return the file that a benchmark's length-controlled win rate needs, as a list; none if it is left out."""
    path = named_by(wildcards.benchmark, "regression_data")
    return [] if path is None else [path]


def given_annotations(wildcards):
    """Return the file of annotations that a benchmark takes, as a list; none if a judge makes them."""
    keys = config["benchmarks"][wildcards.benchmark].keys() & {"annotations"}
    return [named_by(wildcards.benchmark, key) for key in keys]


def annotated_by(wildcards):
    """Return the model that makes a benchmark's annotations, as a setting; none for given ones."""
    endpoint = BENCHMARKS[wildcards.benchmark].get("endpoint")
    return {"judge": endpoint["model"]} if endpoint else {}


def get_annotations(wildcards):
    """Return a policy's annotations, made by a judge or elsewhere."""
    made = f"results/benchmarks/{wildcards.benchmark}/annotations/{wildcards.policy}.jsonl"
    return ancient(given_annotations(wildcards)) or made

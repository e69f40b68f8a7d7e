# What the benchmarks beside MT-Bench read and make.

from prefline.data import benchmark_results

BENCHMARKS = config["benchmarks"]
BENCHMARK_TABLES = ["results/benchmarks.csv", "results/contamination.csv"] if BENCHMARKS else []


def named_by(benchmark, key):
    """The file or folder that a benchmark's section names, None for null. One that is missing is one sentence."""
    section = config["benchmarks"][benchmark]
    try:
        named_files.check({"benchmarks": {benchmark: {key: section[key]}}})
    except InputError as error:
        raise WorkflowError(str(error))
    return section[key]


def questions_of(benchmark):
    """The file of what a benchmark asks the policies."""
    return BENCHMARKS[benchmark]["problems" if BENCHMARKS[benchmark]["kind"] == "evalplus" else "references"]


def get_questions(wildcards):
    """The same, as an input; a file that is missing is one sentence with the command that gets it."""
    path = questions_of(wildcards.benchmark)
    try:
        benchmark_results.check_there(path, BENCHMARKS[wildcards.benchmark]["kind"])
    except InputError as error:
        raise WorkflowError(f"config: benchmarks.{wildcards.benchmark}: {error}")
    return ancient(path)


def task_files(benchmark):
    """All files of a benchmark's task folder: the tasks and their data."""
    folder = named_by(benchmark, "include_path")
    return [] if folder is None else members(folder)


def regression_data(wildcards):
    """The file that a benchmark's length-controlled win rate needs, as a list; none if it is left out."""
    path = named_by(wildcards.benchmark, "regression_data")
    return [] if path is None else [path]


def given_annotations(wildcards):
    """The file of annotations that a benchmark takes, as a list; none if a judge makes them."""
    keys = config["benchmarks"][wildcards.benchmark].keys() & {"annotations"}
    return [named_by(wildcards.benchmark, key) for key in keys]


def annotated_by(wildcards):
    """The model that makes a benchmark's annotations, as a setting; none for given ones."""
    endpoint = BENCHMARKS[wildcards.benchmark].get("endpoint")
    return {"judge": endpoint["model"]} if endpoint else {}


def get_annotations(wildcards):
    """A policy's annotations, made by a judge or elsewhere."""
    made = f"results/benchmarks/{wildcards.benchmark}/annotations/{wildcards.policy}.jsonl"
    return ancient(given_annotations(wildcards)) or made

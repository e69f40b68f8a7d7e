"""The benchmarks' rules on a model that is there: results, table, and what runs again."""

import json
import sys

import pytest
from conftest import ROOT, snakemake

sys.path.insert(0, str(ROOT / "tests/helpers"))
import small_model

from prefline.errors import InputError
from prefline.machine import sandbox

TASK = """
task: small
dataset_path: json
dataset_kwargs: {data_files: {test: tasks/rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc}]
metadata: {version: 1.0}
"""
OVERLAY = """
models: {sft: {source: given}, reward_model: {source: rm}}
train: {learning_rate: 1.0e-4}
benchmarks:
  small: {kind: lm_eval, tasks: [small], include_path: tasks, num_fewshot: 0, limit: null, apply_chat_template: true, dtype: float32}
  given: {kind: alpaca_eval_annotations, annotations: annotations.jsonl, regression_data: null}
  rewards: {kind: reward_bench, data: rewards.jsonl}
"""  # noqa: E501
TARGETS = [f"results/benchmarks/{name}.json" for name in ("small/sft", "given/sft", "rewards/reward_model")]


@pytest.mark.slow
def test_a_policy_is_evaluated_and_an_edit_runs_its_benchmark_again(project):
    small_model.make_model(project / "given", max_position_embeddings=512)
    (project / "tasks").mkdir()
    (project / "tasks/small.yaml").write_text(TASK)
    rows = [{"question": f"Is {n} even?", "choices": ["yes", "no"], "answer": n % 2} for n in range(4)]
    (project / "tasks/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    annotation = {"generator_2": "sft", "annotator": "given", "preference": 1.25}
    (project / "annotations.jsonl").write_text(json.dumps(annotation) + "\n")
    tokenizer = small_model.make_tokenizer(small_model.CHATML, bos_token=None)
    shape = {"num_labels": 1, "pad_token_id": tokenizer.pad_token_id}
    small_model.make_model(project / "rm", tokenizer, "LlamaForSequenceClassification", **shape)
    question = {"prompt": "1 + 1?", "chosen": ["2"], "rejected": ["3", "11"], "subset": "Math"}
    (project / "rewards.jsonl").write_text(json.dumps(question) + "\n")
    (project / "overlay.yaml").write_text(OVERLAY)

    def run(*arguments):
        return snakemake(project, *arguments, *TARGETS, "--configfile", "overlay.yaml").stdout

    run()
    found = [json.loads((project / target).read_text())["metrics"] for target in TARGETS]
    assert [(one["metric"], one["n"]) for one in found[0]] == [("small/acc", 4)]
    assert [one["value"] for one in found[1]] == [25, 0]
    assert [(one["metric"], one["n"]) for one in found[2]] == [("Math/accuracy", 1), ("average", 1)]
    assert "Nothing to be done" in run("-n")

    (project / "annotations.jsonl").write_text(json.dumps(annotation | {"preference": 2}) + "\n")
    planned = run("-n")
    assert "score_alpaca_eval" in planned
    assert "evaluate_lm_eval" not in planned
    (project / "tasks/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    assert "evaluate_lm_eval" in run("-n")
    more = json.dumps(question | {"prompt": "3 + 1?"}) + "\n"
    (project / "rewards.jsonl").write_text(json.dumps(question) + "\n" + more)
    assert "evaluate_reward" in run("-n")

    whole = snakemake(
        project, "-n", "results/benchmarks/benchmarks.csv", "--configfile", "overlay.yaml"
    ).stdout
    assert "gather_benchmarks" in whole


@pytest.mark.long
def test_what_a_policy_writes_is_run(project):
    try:
        sandbox.run(ROOT / "prefline/machine/__init__.py", {}, {}, megabytes=1, memory_mb=500, seconds=60)
    except InputError as error:
        pytest.skip(str(error))
    small_model.make_model(project / "given", max_position_embeddings=1024)
    problem = {"task_id": "Own/0", "prompt": "def one():\n", "entry_point": "one", "contract": "", "atol": 0}
    problem |= {"canonical_solution": "    return 1\n", "base_input": [[]], "plus_input": [[]]}
    (project / "problems.jsonl").write_text(json.dumps(problem) + "\n")
    (project / "overlay.yaml").write_text(
        "models: {sft: {source: given}}\ntrain: {learning_rate: 1.0e-4}\n"
        "benchmarks: {code: {kind: evalplus, problems: problems.jsonl, "
        "temperature: 0, max_tokens: 4}}\n"
    )
    target = "results/benchmarks/code/sft.json"
    snakemake(project, target, "--configfile", "overlay.yaml")
    assert [one["value"] for one in json.loads((project / target).read_text())["metrics"]] == [0, 0]
    (project / "problems.jsonl").write_text(json.dumps(problem | {"plus_input": [[], []]}) + "\n")
    planned = snakemake(project, target, "-n", "--configfile", "overlay.yaml").stdout
    assert "execute_evalplus" in planned


@pytest.mark.slow
def test_without_benchmarks_the_chain_is_what_it_was(project):
    planned = snakemake(project, "-n").stdout
    assert "compute_winrate" in planned
    assert "gather_benchmarks" not in planned
    assert "check_contamination" not in planned


@pytest.mark.slow
def test_problems_that_are_missing_are_said_with_the_command_that_gets_them(project):
    section = "{kind: evalplus, problems: gone.jsonl, temperature: 0, max_tokens: 4}"
    (project / "overlay.yaml").write_text(f"benchmarks: {{code: {section}}}\n")
    process = snakemake(
        project, "-n", "results/benchmarks/benchmarks.csv", "--configfile", "overlay.yaml", check=False
    )
    assert process.returncode != 0
    said = process.stdout + process.stderr
    assert "config: benchmarks.code: gone.jsonl: no such file; get the published one with: curl" in said
    assert "Traceback" not in said

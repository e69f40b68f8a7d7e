"""lm-evaluation-harness runs on a small local task, and what it cannot have is one sentence."""

import csv
import json
import re

import pytest
import small_model

from prefline import files, unicode
from prefline.errors import InputError
from scripts.benchmarks import evaluate_lm_eval, gather_benchmarks

# The library reads the thousands of its task files for each of them.
pytestmark = pytest.mark.slow

CHOICES = """
task: small_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
metadata: {{version: 1.0}}
"""
WORDS = """
task: small_words
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
fewshot_split: test
num_fewshot: 1
output_type: generate_until
doc_to_text: "Q: {{{{question}}}} A:"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["Q:"], do_sample: false, max_gen_toks: 4}}
filter_list:
  - {{name: first-word, filter: [{{function: regex, regex_pattern: "(\\\\w+)"}}, {{function: take_first}}]}}
metric_list: [{{metric: exact_match}}]
metadata: {{version: 2.0}}
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return small_model.make_model(tmp_path_factory.mktemp("policy"), max_position_embeddings=512)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """What the script sets for its process, taken back for the tests that share this one."""
    import datasets
    import huggingface_hub

    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def tasks(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"question": f"Is {n} even?", "choices": ["yes", "no"], "answer": n % 2} for n in range(6)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "choice.yaml").write_text(CHOICES.format(data=folder / "rows.jsonl"))
    (folder / "words.yaml").write_text(WORDS.format(data=folder / "rows.jsonl"))
    return folder


def evaluate(policy, folder, tmp_path, names=("small_choice", "small_words"), **changed):
    values = {
        "model": policy,
        "policy": "sft",
        "benchmark": "small",
        "tasks": json.dumps(names),
        "include-path": folder,
        "num-fewshot": "null",
        "limit": "null",
        "apply-chat-template": "true",
        "dtype": "float32",
        "seed": 1,
        "batch-size": 4,
        "samples": tmp_path / "samples.jsonl",
        "out": tmp_path / "sft.json",
    } | changed
    evaluate_lm_eval.main([f"--{name}={value}" for name, value in values.items()])
    return files.read_json(tmp_path / "sft.json")


def test_tasks_run_and_their_numbers_stand_in_the_table(policy, tasks, tmp_path):
    result = evaluate(policy, tasks, tmp_path)
    found = {one["metric"]: one for one in result["metrics"]}
    assert set(found) == {
        "small_choice/acc", "small_choice/acc_norm", "small_words/exact_match,first-word"
    }  # fmt: skip
    accuracy = found["small_choice/acc"]
    assert accuracy["n"] == 6
    assert round(accuracy["value"] * 6, 6) in range(7)
    # The library's: the standard deviation of the six answers by the root of their number.
    p = accuracy["value"]
    assert accuracy["stderr"] == pytest.approx((p * (1 - p) / 5) ** 0.5)
    assert accuracy["settings"] == {
        "limit": None, "apply_chat_template": True, "dtype": "float32", "seed": 1, "num_fewshot": 0,
        "task_version": 1.0,
    }  # fmt: skip
    assert found["small_words/exact_match,first-word"]["settings"]["num_fewshot"] == 1

    kept = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert len(kept) == 12
    choices = [row for row in kept if row["task"] == "small_choice"]
    assert [row["doc_id"] for row in choices] == list(range(6))
    assert sum(row["acc"] for row in choices) / 6 == pytest.approx(p)
    assert ["Is 3 even?" in row["arguments"][0][0] for row in choices].count(True) == 1
    words = [row for row in kept if row["task"] == "small_words"]
    assert all(isinstance(row["resps"][0][0], str) for row in words) and words[0]["target"] == "yes"

    gather_benchmarks.main(
        ["--results", str(tmp_path / "sft.json"), "--out", str(tmp_path / "benchmarks.csv")]
    )
    with open(tmp_path / "benchmarks.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["metric"] for row in rows] == [one["metric"] for one in result["metrics"]]
    assert {(row["policy"], row["benchmark"], row["library"], row["version"]) for row in rows} == {
        ("sft", "small", "lm_eval", "0.4.13")
    }
    assert json.loads(rows[0]["settings"])["apply_chat_template"] is True


def test_what_json_cannot_hold_is_kept_as_it_can():
    sample = {"doc_id": 0, "filter": "none", "arguments": [("half \ud83d", {"until": []})]}
    sample |= {"resps": [[(float("-inf"), True)]], "filtered_resps": [{1}], "target": None}
    results = {"samples": {"task": [sample | {"metrics": ["acc"], "acc": float("nan")}]}}
    [row] = evaluate_lm_eval.samples(results)
    assert (row["resps"], row["filtered_resps"], row["acc"]) == ([[[None, True]]], ["{1}"], None)
    assert unicode.valid(row)["arguments"][0][0] == "half \ufffd"


def test_a_limit_takes_the_first_questions(policy, tasks, tmp_path):
    result = evaluate(policy, tasks, tmp_path, ("small_choice",), limit=2)
    assert {one["n"] for one in result["metrics"]} == {2}


@pytest.mark.parametrize("add_bos", [False, True])
def test_a_dialogue_has_one_bos(tmp_path, add_bos):
    """Whether the template writes it, as here, or the tokenizer would too."""
    from lm_eval.models.huggingface import HFLM

    path = small_model.make_model(tmp_path, small_model.make_tokenizer(add_bos=add_bos))
    model = HFLM(pretrained=str(path), device="cpu", dtype="float32")
    text = model.apply_chat_template([{"role": "user", "content": "Hello"}])
    assert model.tok_encode(text).count(0) == 1
    assert model.tok_batch_encode([text])[0][0].tolist().count(0) == 1


def test_an_unknown_task_is_named_with_its_neighbours(policy, tasks, tmp_path):
    with pytest.raises(
        InputError, match=r"benchmarks\.small\.tasks: .* no task 'small_word'; did you mean small_words"
    ):
        evaluate(policy, tasks, tmp_path, ("small_word",))
    with pytest.raises(InputError, match="there is no folder"):
        evaluate(policy, tasks / "gone", tmp_path)


def test_data_that_is_not_here_is_named_with_the_command_that_gets_it(policy, tasks, tmp_path):
    (tasks / "hub.yaml").write_text(
        CHOICES.format(data="x").replace("dataset_path: json", "dataset_path: nobody/nothing")
        .replace("small_choice", "of_the_hub").replace("dataset_kwargs: {data_files: {test: x}}\n", "")
    )  # fmt: skip
    with pytest.raises(InputError) as caught:
        evaluate(policy, tasks, tmp_path, ("of_the_hub",))
    message = str(caught.value)
    assert "the data of the task of_the_hub is not here" in message
    assert "nobody/nothing" in message
    command = re.search(r'python -c "(.*)"$', message)[1]
    compile(command, "command", "exec")
    assert f"include_path={str(tasks)!r}" in command

    (tasks / "rows.jsonl").unlink()
    with pytest.raises(InputError, match="the data of the task small_choice is not here"):
        evaluate(policy, tasks, tmp_path)

"""Problems with right answers: read, asked, and verified by the function that rewards."""

import json

import pytest
import small_model

from prefline import files
from prefline.errors import InputError
from prefline.rewards import NoReward, verifiers
from scripts.benchmarks import answer_benchmark, verify_answers
from scripts.checks import check_problems

pytest.importorskip("math_verify")
GSM8K = {"question": "How many are 16 - 3 - 4, at 2 each?", "answer": "9 * 2 = <<9*2=18>>18 in all.\n#### 18"}
MATH = {"problem": "Solve $2x = 1$.", "solution": r"Since $x + 0 = x$, $x = \boxed{\frac{1}{2}}$ of 99."}


def checked(tmp_path, rows, columns, system="null"):
    """The problems that the check writes for the policies, and what it found."""
    files.write_jsonl(tmp_path / "rows.jsonl", rows)
    words = ["--benchmark", "own", "--source", str(tmp_path / "rows.jsonl"), "--system", system]
    words += ["--columns", json.dumps(columns)]
    words += ["--problems", str(tmp_path / "problems.jsonl"), "--out", str(tmp_path / "found.json")]
    check_problems.main(words)
    problems = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    return problems, files.read_json(tmp_path / "found.json")["found"]


def verified(tmp_path, rows):
    """({metric: (value, stderr, n)}, notes, verdicts) of answers."""
    files.write_jsonl(tmp_path / "answers.jsonl", rows)
    words = ["--policy", "sft", "--benchmark", "own", "--answers", str(tmp_path / "answers.jsonl")]
    words += ["--temperature", "0", "--max-tokens", "8", "--verdicts", str(tmp_path / "verdicts.jsonl")]
    verify_answers.main([*words, "--out", str(tmp_path / "o.json")])
    found = files.read_json(tmp_path / "o.json")
    assert found["library"] == "math-verify"
    verdicts = [
        json.loads(line)["verdict"] for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()
    ]
    metrics = {one["metric"]: (one["value"], one["stderr"], one["n"]) for one in found["metrics"]}
    return metrics, found["notes"], verdicts


def test_problems_of_both_forms_are_asked_and_verified(tmp_path):
    for row, columns, right in (
        (GSM8K, {"prompt": "question", "reference": "answer"}, "So 16 - 7 = 9, times 2 is $18$."),
        (MATH, {"prompt": "problem", "reference": "solution"}, r"\boxed{0.5}"),
    ):
        (problem,), found = checked(tmp_path, [row], columns, system="Think.")
        assert found == "1 problems, whose references can all be verified"
        assert [message["role"] for message in problem["messages"]] == ["system", "user"]
        answers = [(right, "stop"), ("I say 99.", "stop"), ("", "length"), ("<think>18, 0.5", "length")]
        rows = [problem | {"answer": text, "finish_reason": reason} for text, reason in answers]
        metrics, notes, verdicts = verified(tmp_path, rows)
        assert verdicts == ["right", "wrong", "wrong", "wrong"] and not notes
        # Worked by hand: the square root of 1/4 · 3/4 / 3.
        assert metrics["exact_match"] == (0.25, pytest.approx(0.25), 4)
        assert metrics["cut_off"][0] == 0.5 and metrics["failed"][0] == 0
        assert 0 < metrics["exact_match/low"][0] < 0.25 < metrics["exact_match/high"][0] < 1


def test_what_the_verifier_fails_at_is_counted_and_never_right(tmp_path, monkeypatch):
    def verify(messages, completion, reference):
        if completion == "hostile":
            raise NoReward("timeout")
        return 1.0

    monkeypatch.setattr(verifiers, "math", verify)
    rows = [{"answer": text, "reference": "1", "finish_reason": "stop"} for text in ("1", "hostile")]
    metrics, notes, verdicts = verified(tmp_path, rows)
    assert verdicts == ["right", "timeout"]
    assert (metrics["exact_match"][0], metrics["failed"][0]) == (0.5, 0.5)
    assert notes == ["The verifier failed at 1 answers, which count as wrong: 1 timeout."]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [GSM8K, GSM8K | {"question": "Who?", "answer": "who knows"}],
            r"rows.jsonl, line 2: the reference 'who",
        ),
        ([GSM8K | {"answer": " "}], r"rows.jsonl, line 1: has no reference answer in the column 'answer'"),
        ([GSM8K, GSM8K], r"rows.jsonl, line 2: asks what .*rows.jsonl, line 1 asks; remove one of the two"),
        ([GSM8K | {"question": ""}], "rows.jsonl"),
    ],
)
def test_a_row_that_cannot_be_verified_is_named_before_a_policy_answers(tmp_path, rows, sentence):
    with pytest.raises(InputError, match=f"^benchmarks.own.source: .*{sentence}"):
        checked(tmp_path, rows, {"prompt": "question", "reference": "answer"})


def test_a_policy_answers_with_the_system_message(tmp_path):
    model = small_model.make_model(
        tmp_path / "model", small_model.make_tokenizer(), max_position_embeddings=512
    )
    checked(tmp_path, [GSM8K], {"prompt": "question", "reference": "answer"}, system="Think.")
    texts = []
    for number, content in enumerate(("Think.", "Do not think, but write what you like.")):
        problems = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
        problems[0]["messages"][0]["content"] = content
        files.write_jsonl(tmp_path / "asked.jsonl", problems)
        values = small_model.ENGINE | {"questions": tmp_path / "asked.jsonl", "form": "math", "policy": "sft"}
        values |= {"model": model, "temperature": 0, "max-tokens": 6, "seed": 1}
        values |= {"journal": tmp_path / f"journal{number}", "out": tmp_path / "answers.jsonl"}
        answer_benchmark.main([f"--{name}={value}" for name, value in values.items()])
        (row,) = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
        assert row["finish_reason"] == "length" and row["reference"] == GSM8K["answer"]
        texts.append(row["answer"])
    assert texts[0] != texts[1], "the system message was not read"

"""AlpacaEval's own code annotates by our client and counts the wins."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import small_model
import stand_in

from prefline import files
from prefline.data import benchmark_results
from prefline.errors import InputError
from prefline.judging import annotators
from prefline.servers import conversation
from prefline.servers.endpoint import Endpoint
from scripts.benchmarks import annotate_alpaca_eval, answer_benchmark, score_alpaca_eval

REFERENCES = [{"instruction": f"Question {n}", "output": "bad" * n, "generator": "gpt4"} for n in range(1, 7)]
ANSWERS = [{"instruction": f"Question {n}", "output": "good", "generator": "dpo-1"} for n in range(1, 7)]
# As the library's published files have them: 1 for the reference, 2 for the policy, 1.5 and 0 for neither.
PREFERENCES = [1.0, 2.0, 1.9, 1.2, 1.5, 0.0, None]

# Published with counts that do not belong to its rates.
UNLIKE_ITS_COUNTS = "aligner-2b_gpt-4-turbo-2024-04-09"


class LogprobJudge(stand_in.StandIn):
    """Gives the model that says "good" a probability of 0.8; `logprobs` False leaves them out.

    words: its text; with others than "m", the log-probabilities are of another token. `asked` leaves out the
    trial of the form of requests.
    """

    logprobs, words = True, "m"

    def converse(self, handler, payload):
        if payload["model"] != self.name:
            error = {"message": f"The model {payload['model']} does not exist"}
            return stand_in.reply(handler, 404, {"error": error})
        if payload["messages"] != conversation.TRIAL.messages:
            self.asked.append(payload)
        first = '"model_identifier": "m",\n        "output": """good"""' in payload["messages"][-1]["content"]
        chances = {"m": 0.8 if first else 0.2, "M": 0.2 if first else 0.8}
        top = [{"token": token, "logprob": math.log(chance)} for token, chance in chances.items()]
        message = {"role": "assistant", "content": self.words}
        choice = {"message": message, "finish_reason": "length", "index": 0}
        if self.words != "m":
            top = [{"token": "I", "logprob": -0.1}]
        if self.logprobs:
            choice["logprobs"] = {"content": [{"token": "m", "top_logprobs": top}]}
        return self.answer(handler, {"choices": [choice]})


@pytest.fixture
def judge():
    server = LogprobJudge(name="gpt")
    yield server
    server.close()


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def annotate(tmp_path, server, references=REFERENCES, answers=ANSWERS, asked=None, **changed):
    values = {
        "references": write(tmp_path / "references.jsonl", references),
        "answers": write(tmp_path / "answers.jsonl", answers),
        "annotator": "weighted_alpaca_eval_gpt4_turbo",
        "endpoint": json.dumps(stand_in.endpoint(server, **{"model": "gpt", "timeout": 10} | (asked or {}))),
        "concurrency": 4,
        "journal": tmp_path / "journal",
        "out": tmp_path / "annotations.jsonl",
    } | changed
    annotate_alpaca_eval.main([f"--{name}={value}" for name, value in values.items()])
    return [json.loads(line) for line in (tmp_path / "annotations.jsonl").read_text().splitlines()]


def score(tmp_path, annotations, **changed):
    values = {
        "policy": "dpo-1",
        "benchmark": "alpaca",
        "annotations": annotations,
        "judge": "gpt",
        "regression-data": "null",
        "out": tmp_path / "dpo-1.json",
    } | changed
    score_alpaca_eval.main([f"--{name}={value}" for name, value in values.items()])
    result = files.read_json(tmp_path / "dpo-1.json")
    return {one["metric"]: one for one in result["metrics"]}, result


def test_a_judge_is_asked_once_for_each_pair_in_the_librarys_order(tmp_path, judge):
    rows = annotate(tmp_path, judge)
    assert [row["instruction"] for row in rows] == [row["instruction"] for row in REFERENCES]
    # Whichever output came first in the prompt: the policy's is better with a probability of 0.8.
    assert [row["preference"] for row in rows] == pytest.approx([1.8] * 6)
    assert len(judge.asked) == 6
    assert {asked["max_tokens"] for asked in judge.asked} == {1}
    firsts = ['"m",\n        "output": """good' in asked["messages"][-1]["content"] for asked in judge.asked]
    assert len(set(firsts)) == 2
    found, result = score(tmp_path, tmp_path / "annotations.jsonl")
    assert found["win_rate"]["value"] == pytest.approx(80)
    assert found["discrete_win_rate"]["value"] == 100
    assert result["version"] == "0.6.6"
    assert found["win_rate"]["settings"] == {"annotator": "weighted_alpaca_eval_gpt4_turbo", "judge": "gpt"}

    annotate(tmp_path, judge)
    assert len(judge.asked) == 6  # the journal has them


def test_a_budget_that_is_used_up_is_one_sentence_and_what_is_done_is_kept(tmp_path, judge, monkeypatch):
    with pytest.raises(
        InputError, match=r"endpoints.stand_in: the budget is used up after 5 calls.*: 2 calls; raise"
    ):
        annotate(tmp_path, judge, asked={"max_calls": 5}, concurrency=1)
    assert len(judge.asked) == 4 and not (tmp_path / "annotations.jsonl").exists()
    with pytest.raises(InputError, match=r"the budget is used up after 5 calls.*: 2 calls; raise"):
        annotate(tmp_path, judge, asked={"max_calls": 5})
    assert len(annotate(tmp_path, judge, asked={"max_calls": 8})) == 6
    assert len(judge.asked) == 6
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(InputError, match=r"endpoints\.stand_in: the environment has no JUDGE_KEY"):
        annotate(tmp_path, judge, asked={"key_variable": "JUDGE_KEY", "model": "dear"})


def test_a_busy_server_loses_no_verdict(tmp_path, judge):
    judge.faults = [(429, {"Retry-After": "0"}), "truncated JSON", "disconnect"]
    assert [row["preference"] for row in annotate(tmp_path, judge)] == pytest.approx([1.8] * 6)


def test_requests_have_the_form_that_the_server_takes(tmp_path, judge):
    """As of new models: another name for the limit, and no temperature."""
    refused = {"max_tokens": "use 'max_completion_tokens'", "temperature": "'temperature' is not supported"}

    def reply(payload):
        wrong = next((words for field, words in refused.items() if field in payload), None)
        return wrong and (400, {"error": {"message": wrong}})

    judge.replies = reply
    assert len(annotate(tmp_path, judge)) == 6
    fields = {"model", "messages", "max_completion_tokens", "logprobs", "top_logprobs"}
    assert all(asked.keys() == fields for asked in judge.asked)


@pytest.mark.parametrize("annotator", ["weighted_alpaca_eval_gpt4_turbo", "alpaca_eval_gpt4"])
def test_annotations_that_nobody_can_read_are_one_sentence(tmp_path, judge, annotator):
    judge.words = "<think>Output (a)</think> I cannot tell."
    with pytest.raises(InputError, match=f"none of the 6 annotations by gpt .* {annotator} can read; take"):
        annotate(tmp_path, judge, annotator=annotator)
    assert not (tmp_path / "annotations.jsonl").exists()
    given = write(tmp_path / "given.jsonl", [annotation(n, None) for n in range(3)])
    with pytest.raises(InputError, match=r"given\.jsonl: none of the 3 annotations of 'dpo-1' holds a"):
        score(tmp_path, given)


@pytest.mark.slow
def test_every_annotator_of_the_library_annotates_or_is_refused_in_one_sentence(tmp_path, judge):
    import alpaca_eval

    judge.words, asked = "Neither.", Endpoint(**stand_in.endpoint(judge, model="gpt", timeout=10))
    found = Counter()
    for path in sorted(Path(alpaca_eval.__file__).parent.glob("evaluators_configs/*/configs.yaml")):
        client = annotators.Judge(asked, 1, tmp_path)
        try:
            (row,) = annotators.annotate(REFERENCES[:1], ANSWERS[:1], path.parent.name, client)
            assert row["preference"] is None or math.isnan(row["preference"])
            found["annotates"] += 1
        except InputError as error:
            assert "\n" not in str(error) and "take another annotator" in str(error)
            found["refused"] += 1
    assert found["annotates"] >= 20 and found["refused"] >= 10


def annotation(number, preference, length=10):
    return {
        "instruction": f"Question {number}",
        "generator_1": "gpt4",
        "output_1": "b" * 10,
        "generator_2": "dpo-1",
        "output_2": "a" * length,
        "annotator": "given",
        "preference": preference,
    }


def test_the_win_rate_is_the_librarys_to_the_hundredth(tmp_path):
    """Worked by hand: the mean of the preferences that there are, less one; neither counts as a half."""
    from alpaca_eval.metrics import get_winrate

    rows = [annotation(number, preference) for number, preference in enumerate(PREFERENCES)]
    other = annotation(9, 2.0) | {"generator_2": "sft"}
    found, result = score(tmp_path, write(tmp_path / "given.jsonl", [*rows, other]))
    by_hand = 100 * (0 + 1 + 0.9 + 0.2 + 0.5 + 0.5) / 6
    assert found["win_rate"]["value"] == pytest.approx(by_hand, abs=0.005)
    assert found["win_rate"]["value"] == pytest.approx(get_winrate(rows)["win_rate"], abs=1e-9)
    assert found["discrete_win_rate"]["value"] == pytest.approx(100 * 3 / 6)
    assert found["win_rate"]["n"] == 6
    assert result["notes"][0] == "1 of 7 annotations hold no preference"
    assert "df_gamed.csv" in result["notes"][1]
    assert "hf download" in result["notes"][1]

    (tmp_path / "given.json").write_text(json.dumps([*rows, other]))  # as they are published
    assert score(tmp_path, tmp_path / "given.json")[0] == found


def published():
    """Yield (annotator, model, row) of the leaderboards that the library comes with."""
    import alpaca_eval
    import pandas

    for path in sorted(Path(alpaca_eval.__file__).parent.glob("leaderboards/data_*/*_leaderboard.csv")):
        for model, row in pandas.read_csv(path, index_col=0).iterrows():
            yield path.stem, model, row


def test_the_rates_are_the_published_ones():
    """The counts of wins, draws and losses are all that annotations hold whose preferences are 1, 1.5 and 2.

    AlpacaEval 2's own annotator weighs its preferences: there only the discrete rate follows from the counts.
    """
    checked = Counter()
    for annotator, model, row in published():
        counts = {2.0: row["n_wins"], 1.0: row["n_wins_base"], 1.5: row["n_draws"]}
        annotations = [{"preference": one} for one, count in counts.items() for _ in range(int(count))]
        win_rate, discrete = score_alpaca_eval.metrics(annotations, None, {})[0]
        wanted = {"discrete_win_rate": discrete["value"]}
        if not annotator.startswith("weighted"):
            wanted |= {"win_rate": win_rate["value"], "standard_error": win_rate["stderr"]}
        if model == UNLIKE_ITS_COUNTS:
            continue
        for name, value in wanted.items():
            if not math.isnan(row.get(name, math.nan)):
                assert value == pytest.approx(row[name], abs=0.01), (annotator, model, name)
                checked[name] += 1
    assert checked == {"win_rate": 180, "standard_error": 180, "discrete_win_rate": 316}


def gamed(path, instructions):
    """A stand-in for the authors' file: what two models do that are told to be brief and to be long."""
    lines = ["model,index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline"]
    for model, delta in (("concise", 1.0), ("verbose", -1.0)):
        for number in range(instructions):
            preference = 0.5 - 0.2 * math.tanh(delta) + 0.05 * (number % 3 - 1)
            lines.append(f"{model},{number},{preference},{delta},{number % 4 - 1.5},False")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_length_control_takes_off_what_length_wins(tmp_path):
    """Half of the answers are long and win: at equal length they would win less."""
    rows = [annotation(n, 1.9 if n % 2 else 1.3, 60 + n % 7 if n % 2 else 8 + n % 3) for n in range(40)]
    path = write(tmp_path / "given.jsonl", rows)
    found, result = score(tmp_path, path, **{"regression-data": gamed(tmp_path / "df_gamed.csv", 40)})
    assert found["win_rate"]["value"] == pytest.approx(60)
    controlled = found["length_controlled_win_rate"]
    assert 0 < controlled["value"] < found["win_rate"]["value"] - 5
    assert controlled["stderr"] > 0
    assert result["notes"] == []
    with pytest.raises(InputError, match="about 39 instructions, and 40 are annotated"):
        score(tmp_path, path, **{"regression-data": gamed(tmp_path / "df_gamed.csv", 39)})


def test_a_policy_answers_in_the_librarys_form(tmp_path):
    model = small_model.make_model(tmp_path / "model")
    values = small_model.ENGINE | {
        "questions": write(tmp_path / "references.jsonl", REFERENCES),
        "form": "alpaca_eval",
        "policy": "sft",
        "model": model,
        "temperature": 0.7,
        "max-tokens": 6,
        "seed": 1,
        "journal": tmp_path / "journal",
        "out": tmp_path / "answers.jsonl",
    }
    answer_benchmark.main([f"--{name}={value}" for name, value in values.items()])
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["instruction"] for row in rows] == [row["instruction"] for row in REFERENCES]
    assert {row["generator"] for row in rows} == {"sft"}
    annotate_alpaca_eval.check_answers(REFERENCES, rows)


def test_bad_input_is_one_sentence(tmp_path, judge):
    with pytest.raises(InputError, match=r"gone\.json: no such file; .* hf download .*baseline\.json"):
        benchmark_results.read_questions(tmp_path / "gone.json", "alpaca_eval")
    with pytest.raises(InputError, match="line 7: asks what an earlier row asks"):
        annotate(tmp_path, judge, references=[*REFERENCES, REFERENCES[0]])
    with pytest.raises(InputError, match="not one for each instruction; see 'Question 6'"):
        annotate(tmp_path, judge, answers=ANSWERS[:-1])
    with pytest.raises(InputError, match="line 1: has no text as 'instruction'"):
        annotate(tmp_path, judge, answers=[{"question": "a"}])
    with pytest.raises(InputError, match="no annotator 'gpt5'"):
        annotate(tmp_path, judge, annotator="gpt5")
    with pytest.raises(InputError, match="The model other does not exist: the server has no such model"):
        annotate(tmp_path, judge, asked={"model": "other"})
    judge.logprobs = False
    with pytest.raises(InputError, match="'gpt' gives no log-probabilities"):
        annotate(tmp_path, judge)
    given = write(tmp_path / "given.jsonl", [annotation(1, 2.0)])
    with pytest.raises(InputError, match="no row whose generator_2 is 'rebel-1'"):
        score(tmp_path, given, policy="rebel-1")
    with pytest.raises(InputError, match=r"df\.csv: no such file; get it with: hf download"):
        score(tmp_path, given, **{"regression-data": tmp_path / "df.csv"})

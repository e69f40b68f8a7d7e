"""One annotation by AlpacaEval's own code: what is asked, and what is refused before anything is made."""

import json
import math

import pytest
from stand_in import StandIn, endpoint, reply

from prefline import files
from prefline.errors import InputError
from scripts.checks import check_annotator

REFERENCES = [{"instruction": f"Question {n}", "output": "bad", "generator": "gpt4"} for n in range(3)]


class Annotator(StandIn):
    """Prefers the first output; `logprobs` False leaves the log-probabilities out."""

    logprobs = True

    def converse(self, handler, payload):
        if payload["model"] != self.name:
            error = {"message": f"The model {payload['model']} does not exist"}
            return reply(handler, 404, {"error": error})
        self.asked.append(payload)
        top = [{"token": token, "logprob": math.log(chance)} for token, chance in (("m", 0.8), ("M", 0.2))]
        choice = {"message": {"role": "assistant", "content": "m"}, "finish_reason": "length", "index": 0}
        if self.logprobs:
            choice["logprobs"] = {"content": [{"token": "m", "top_logprobs": top}]}
        return self.answer(handler, {"choices": [choice]})


@pytest.fixture
def server():
    stand_in = Annotator(name="judge")
    yield stand_in
    stand_in.close()


def check(tmp_path, asked, **changed):
    files.write_jsonl(tmp_path / "references.jsonl", REFERENCES)
    values = {
        "asker": "benchmarks.alpaca",
        "references": tmp_path / "references.jsonl",
        "annotator": "weighted_alpaca_eval_gpt4_turbo",
        "endpoint": json.dumps(asked),
        "policies": 4,
        "journal": tmp_path / "journal",
        "out": tmp_path / "o.json",
    } | changed
    check_annotator.main([f"--{key}={value}" for key, value in values.items()])
    return files.read_json(tmp_path / "o.json")["found"]


def test_each_check_asks_for_one_annotation(tmp_path, server):
    for asked in (1, 2):
        found = check(tmp_path, endpoint(server))
        assert len(server.asked) == 2 * asked  # the form of requests is found first
    assert "Question 0" in str(server.asked[1]["messages"])
    assert found.endswith(" annotates; all jobs make up to 12 calls")


@pytest.mark.parametrize(
    ("changed", "annotator", "logprobs", "message"),
    [
        ({"urls": ["http://127.0.0.1:9/v1"]}, None, True, "the server is not reachable"),
        ({"model": "gpt-4"}, None, True, "The model gpt-4 does not exist"),
        ({"key_variable": "NO_SUCH_KEY"}, None, True, "the environment has no NO_SUCH_KEY"),
        ({}, "no_such_annotator", True, "alpaca_eval has no annotator 'no_such_annotator'"),
        ({}, None, False, "gives no log-probabilities, which the annotator reads"),
    ],
)
def test_a_judge_that_cannot_annotate_is_refused(tmp_path, server, changed, annotator, logprobs, message):
    server.logprobs = logprobs
    more = {"annotator": annotator} if annotator else {}
    with pytest.raises(InputError) as error:
        check(tmp_path, endpoint(server) | changed, **more)
    said = str(error.value)
    assert said.startswith("benchmarks.alpaca: ") and message in said and "\n" not in said
    assert not (tmp_path / "o.json").exists()

"""One trial of each judge's endpoint: what is asked, and what is refused before anything is made."""

import json

import pytest
import small_model
from stand_in import StandIn, endpoint

from prefline import files
from prefline.errors import InputError
from scripts.checks import check_endpoint

MT_BENCH = {
    "kind": "judge",
    "verdicts": "last",
    "matches": {"pairwise": 3, "single": 4},
    "questions": "data/mt_bench/question.jsonl",
    "references": "data/mt_bench/reference_answer/reference.jsonl",
    "judge_prompts": "data/mt_bench/judge_prompts.jsonl",
}
RUBRIC = {"kind": "rubric", "rubric": "data/rubric.txt", "lowest": 1, "highest": 10, "completions": 512}


def says(payload):
    return "[[A]]" if "[[A]]" in str(payload["messages"]) else "[[5]]"


@pytest.fixture
def server():
    stand_in = StandIn(name="judge", says=says, usage=lambda payload, text: (100, 5))
    yield stand_in
    stand_in.close()


def check(tmp_path, trial, asked):
    values = {
        "asker": "mt_bench.judges.gpt",
        "trial": json.dumps(trial),
        "endpoint": json.dumps(asked),
        "max-tokens": 64,
        "seed": 1,
        "journal": tmp_path / "journal",
        "out": tmp_path / "o.json",
    }
    check_endpoint.main([word for key, value in values.items() for word in (f"--{key}", str(value))])
    return files.read_json(tmp_path / "o.json")["found"]


def test_each_mode_is_tried_once_with_the_real_prompt(tmp_path, server):
    found = check(tmp_path, MT_BENCH, endpoint(server, form="max_tokens"))
    texts = [asked["messages"][-1]["content"] for asked in server.asked]
    assert len(texts) == 2 and "# Answer of assistant A\n\nI do not know." in texts[0]
    assert {asked["max_tokens"] for asked in server.asked} == {64}
    games, ratings = 3 * 160 * 2, 4 * 160
    assert found.endswith(
        f"gives verdicts, asked with max_tokens; all jobs make up to {games + ratings} calls"
    )


def test_a_rubric_is_tried_and_its_costs_are_told(tmp_path, server):
    prices = {"input_price": 10, "output_price": 20, "max_calls": 50}
    found = check(tmp_path, RUBRIC, endpoint(server, **prices))
    assert "512 calls, about " in found and found.endswith("more than endpoints.stand_in.max_calls: 50")
    found = check(tmp_path, RUBRIC, endpoint(server, **prices | {"max_calls": None, "max_cost": 0.1}))
    assert found.endswith("more than endpoints.stand_in.max_cost: 0.1")


def test_every_check_asks_again_and_counts_its_calls(tmp_path, server):
    for _ in range(2):
        check(tmp_path, RUBRIC, endpoint(server, form="max_tokens", max_calls=2))
    assert len(server.asked) == 2
    with pytest.raises(InputError, match="the budget is used up after 2 calls"):
        check(tmp_path, RUBRIC, endpoint(server, form="max_tokens", max_calls=2))


BROKEN = {
    "a wrong address": ({"urls": ["http://127.0.0.1:9/v1"]}, {}, "the server is not reachable"),
    "a wrong name": ({"model": "gpt-4"}, {}, "the server has no model 'gpt-4', only 'judge'"),
    "no key": ({"key_variable": "NO_SUCH_KEY"}, {}, "the environment has no NO_SUCH_KEY"),
    "a wrong key": ({}, {"key": "another"}, "the server wants a key (status 401)"),
    "an empty account": ({"form": "max_tokens"}, {"status": 402}, "status 402"),
    "no budget": ({"max_calls": 0}, {}, "a budget of 0 allows no call"),
    "a small budget": ({"max_cost": 1e-5, "input_price": 1, "output_price": 1}, {}, "the budget is used up"),
    "no verdict": ({}, {"says": lambda _: "Both are fine."}, "no verdict can be read in the answer"),
    "a number out of range": ({}, {"says": lambda _: "[[100]]"}, "no verdict can be read in the answer"),
}


@pytest.mark.parametrize(("changed", "server_is", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_endpoint_is_refused_in_one_sentence(tmp_path, server, changed, server_is, message):
    for name, value in server_is.items():
        setattr(server, name, value)
    with pytest.raises(InputError) as error:
        check(tmp_path, RUBRIC, endpoint(server, **changed))
    said = str(error.value)
    assert said.startswith("mt_bench.judges.gpt: ") and message in said and "\n" not in said
    assert not (tmp_path / "o.json").exists()


def test_references_that_the_judge_would_miss_are_found(tmp_path, server):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="no reference answer to question"):
        check(tmp_path, MT_BENCH | {"references": str(tmp_path / "empty.jsonl")}, endpoint(server))
    assert not server.asked


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "sft"
    return str(small_model.make_model(path, small_model.make_tokenizer()))


@pytest.fixture
def serving(policy):
    stand_in = StandIn(small_model.make_tokenizer(), name="sft")
    yield stand_in
    stand_in.close()


def continued(policy, **changed):
    return {"kind": "policy", "model": policy, "seed_per": "completion", "completions": 512} | changed


@pytest.mark.parametrize("vllm", [True, False])
def test_a_server_with_the_policy_continues_a_prompt(tmp_path, serving, policy, vllm):
    serving.vllm = vllm
    found = check(tmp_path, continued(policy), endpoint(serving, model="sft"))
    form = "token ids" if vllm else "ids in, text out"
    assert found.endswith(f"continues a prompt, sent as {form}; all jobs sample 512 completions")
    assert [asked["max_tokens"] for asked in serving.asked] == [1, 64]


@pytest.mark.parametrize(
    ("changed", "server_is", "message"),
    [
        ({"urls": ["http://127.0.0.1:9/v1"]}, {}, "the server is not reachable"),
        ({"model": "gone"}, {}, "the server has no model 'gone', only 'sft'"),
        ({"key_variable": "NO_SUCH_KEY"}, {}, "the environment has no NO_SUCH_KEY"),
        ({}, {"extra_prompt_tokens": 1}, "it does not take prompts as they are"),
    ],
)
def test_a_server_that_cannot_continue_the_policy_is_refused(
    tmp_path, serving, policy, changed, server_is, message
):
    for name, value in server_is.items():
        setattr(serving, name, value)
    with pytest.raises(InputError) as error:
        check(tmp_path, continued(policy), endpoint(serving, model="sft") | changed)
    assert message in str(error.value) and "\n" not in str(error.value)

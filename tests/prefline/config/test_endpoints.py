"""The config's endpoints: who may name which, what is refused, and where the keys of before went."""

import copy

import pytest
from configs import DEFAULT, refused

from prefline.config import endpoints
from prefline.config import loading as configuration

PRICES = {"input_price": 1.0, "output_price": 2.0}
ENDPOINTS = {
    "local": {"kind": "openai", "urls": ["http://a/v1"], "model": "judge", "max_cost": 3, **PRICES},
    "claude": {"kind": "anthropic", "model": "c"},
    "own": {"kind": "vllm", "model": "start"},
    "unnamed": {"kind": "openai", "urls": ["http://a/v1"]},
}
REWARD = {
    **{"kind": "judge", "endpoint": "local", "rubric": "data/rubric.txt", "lowest": 1, "highest": 10},
    **{"max_tokens": 8, "weight": 1.0, "normalize": "none"},
}
BENCHMARK = {
    **{"kind": "alpaca_eval", "references": "r.json", "temperature": 0, "max_tokens": 8, "annotator": "a"},
    **{"endpoint": "local", "regression_data": None},
}


def config(**changed):
    made = copy.deepcopy(DEFAULT) | {"endpoints": copy.deepcopy(ENDPOINTS)}
    for section, values in changed.items():
        made[section] |= copy.deepcopy(values)
    return made


def test_the_whole_endpoint_stands_where_its_name_did():
    loaded = configuration.load(
        config(
            generate={"engine": "server", "endpoint": "unnamed"},
            rewards={"polite": REWARD},
            mt_bench={"judges": {"c": {"endpoint": "claude", "max_tokens": 8}}},
            benchmarks={"alpaca": BENCHMARK},
        )
    )
    local = endpoints.DEFAULTS | ENDPOINTS["local"] | {"name": "local"}
    assert loaded["rewards"]["polite"]["endpoint"] == local == loaded["endpoints"]["local"]
    assert loaded["benchmarks"]["alpaca"]["endpoint"] == local
    assert loaded["generate"]["endpoint"]["model"] is None
    claude = loaded["mt_bench"]["judges"]["c"]["endpoint"]
    assert claude["urls"] == ["https://api.anthropic.com/v1"]
    assert claude["key_variable"] == "ANTHROPIC_API_KEY"


@pytest.mark.parametrize(
    ("section", "extra_body", "message"),
    [
        ("generate", {"effort": "low"}, "policies are sampled by `generate` alone"),
        ("rewards", {"temperature": 1}, "extra_body.temperature: Prefline sets this field itself"),
        ("rewards", {"api_key": "s"}, "extra_body.api_key: keys are not written in a config"),
    ],
)
def test_an_endpoint_adds_fields_to_judges_requests_alone(section, extra_body, message):
    added = {"endpoints": {"unnamed": ENDPOINTS["unnamed"] | {"extra_body": extra_body}}}
    uses = {"generate": {"engine": "server", "endpoint": "unnamed"}, "rewards": {"polite": REWARD}}
    assert message in refused(config(**added, **{section: uses[section]}))


def test_an_endpoint_of_the_kind_vllm_needs_its_model():
    loaded = configuration.load(config(rewards={"polite": REWARD | {"endpoint": "own"}}))
    assert endpoints.model_of(loaded["rewards"]["polite"]) == "start"
    assert (
        endpoints.model_of(configuration.load(config(rewards={"polite": REWARD}))["rewards"]["polite"])
        is None
    )


def test_null_takes_an_endpoint_and_a_key_away():
    changed = {"local": {**ENDPOINTS["local"], "max_cost": None, "key_variable": None}, "claude": None}
    loaded = configuration.load(config(endpoints=changed))["endpoints"]
    assert list(loaded) == ["local", "own", "unnamed"]
    assert loaded["local"]["max_cost"] is None and loaded["local"]["key_variable"] is None


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"generate": {"endpoint": "locl"}},
            "generate.endpoint names 'locl', which `endpoints` lacks; did you mean",
        ),
        ({"rewards": {"polite": REWARD | {"endpoint": "x"}}}, "lacks; known: local, claude, own, unnamed"),
        (
            {"rewards": {"polite": REWARD | {"endpoint": "unnamed"}}},
            "unnamed.model is missing; set it to the servers' name",
        ),
        (
            {"mt_bench": {"judges": {"g": {"endpoint": "ownn", "max_tokens": 8}}}},
            "mt_bench.judges.g.endpoint names 'ownn', which `endpoints` lacks; did you mean 'own'?",
        ),
        (
            {"benchmarks": {"b": BENCHMARK | {"endpoint": "own"}}},
            "own is of the kind vllm; name one of the kind openai",
        ),
        (
            {"generate": {"endpoint": "claude"}},
            "claude is of the kind anthropic; name one of the kind openai",
        ),
        ({"endpoints": {"a": {"kind": "openai", "model": "m"}}}, "endpoints.a: the kind openai lacks 'urls'"),
        ({"endpoints": {"a": {"kind": "anthropic"}}}, "endpoints.a: the kind anthropic lacks 'model'"),
        ({"endpoints": {"a": {"kind": "vllm", "model": "x"}}}, "names the model 'x', which `models` lacks"),
        (
            {"endpoints": {"a": {"kind": "vllm", "model": "sft", "max_calls": 1}}},
            "endpoints.a: the kind vllm does not take 'max_calls'; it takes model, dtype, timeout",
        ),
        (
            {"endpoints": {"a": {"kind": "openai", "urls": "http://a/v1"}}},
            "endpoints.a.urls: 'http://a/v1' is not",
        ),
        ({"endpoints": {"a": {"kind": "openai", "url": ["http://a/v1"]}}}, "did you mean 'urls'?"),
        ({"endpoints": {"a": {"kind": "opnai"}}}, "did you mean 'openai'?"),
    ],
    ids=str,
)
def test_an_endpoint_that_cannot_be_asked_is_one_sentence(changed, sentence):
    assert sentence in refused(config(**changed))


JUDGED = {"max_tokens": 8}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"generate": {"servers": None}},
            "generate.servers: moved to endpoints.own.urls; write endpoints: {own:",
        ),
        ({"generate": {"served_model": "m"}}, "generate.served_model: moved to endpoints.own.model"),
        *(
            (
                {"rewards": {"polite": REWARD | {key: "v"}}},
                f"rewards.polite.{key}: moved to endpoints.polite.{moved}",
            )
            for key, moved in endpoints.MOVED["rewards"].items()
        ),
        *(
            (
                {"mt_bench": {"judges": {"g": JUDGED | {key: 1}}}},
                f"mt_bench.judges.g.{key}: moved to endpoints.g.{moved}",
            )
            for key, moved in endpoints.MOVED["judges"].items()
        ),
        (
            {"benchmarks": {"b": BENCHMARK | {"servers": "u"}}},
            "benchmarks.b.servers: moved to endpoints.b.urls",
        ),
        ({"benchmarks": {"b": BENCHMARK | {"judge": "m"}}}, "benchmarks.b.judge: moved to endpoints.b.model"),
    ],
    ids=str,
)
def test_a_key_of_before_says_where_it_went(changed, sentence):
    said = refused(config(**changed))
    assert sentence in said and ".endpoint: " in said


def test_every_key_of_before_is_in_the_table():
    assert set(endpoints.MOVED["judges"]) == {
        *("kind", "model", "dtype", "servers", "served_model", "key_variable"),
        *("requests_per_minute", "tokens_per_minute", "input_price", "output_price", "max_calls", "max_cost"),
    }


def test_an_overlay_makes_a_classifier_a_judge():
    nulls = dict.fromkeys(("model", "dtype", "head_weights"))
    loaded = configuration.load(config(rewards={"reward_model": nulls | REWARD}))
    assert loaded["rewards"]["reward_model"]["endpoint"]["name"] == "local"

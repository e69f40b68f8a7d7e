"""The server engine against servers that fail, refuse, or know less than vLLM's."""

import itertools
import time

import httpx2
import pytest
import stand_in
from hypothesis import given
from hypothesis import strategies as st
from small_model import make_model, make_tokenizer
from stand_in import StandIn, endpoint

from prefline import engines
from prefline.engines import Completion, Request, Sampling
from prefline.errors import InputError
from prefline.servers.client import KEY_VARIABLE
from prefline.servers.endpoint import Endpoint
from prefline.servers.replies import LONGEST_RETRY_AFTER, retry_after

SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=8)
REQUESTS = [Request([0, 30, 31], seed, f"prompt {seed}") for seed in range(12)]
FAULTS = [*stand_in.FAULTS, {"choices": [{"finish_reason": "length", "token_ids": []}]}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "policy", make_tokenizer(), weights=True)


@pytest.fixture
def start():
    """start(...) -> a StandIn, which ends with the test."""
    started = []

    def make(**options):
        started.append(StandIn(make_tokenizer(), **options))
        return started[-1]

    yield make
    for server in started:
        server.close()


def load(model, *servers, batch_size=4, **options):
    values = {
        "seed_per": "completion",
        "seed": 1,
        "served_model": None,
        "vllm": {},
        "journal": "nowhere",
        "attempts": 4,
        "first_wait": 0.01,
        "longest_wait": 0.05,
    }
    urls = [server if isinstance(server, str) else server.url for server in servers]
    asked = {name: options.pop(name) for name in list(options) if name in endpoint("")}
    asked = Endpoint(**endpoint("", urls=urls, **asked))
    return engines.load("server", model, batch_size, "float32", endpoint=asked, **values | options)


def expected(server, requests=REQUESTS):
    return [Completion(server.ids(request.seed), "stop") for request in requests]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_what_fails_once_is_tried_again(model, start, fault):
    server = start()
    server.faults = [fault]
    engine = load(model, server, timeout=5 if fault == "hang" else 30)
    assert engine.generate(REQUESTS, SAMPLING) == expected(server)
    assert engine.report()["server_retries"] == 1


def test_two_faults_in_any_order(model, start):
    server = start()
    engine = load(model, server)
    faults = [fault for fault in FAULTS if fault != "hang"]
    for pair in itertools.product(faults, repeat=2):
        server.faults = list(pair)
        assert engine.generate(REQUESTS, SAMPLING) == expected(server)
    assert engine.report()["server_retries"] == 2 * len(faults) ** 2


def test_retry_after_holds_back_all_requests(model, start):
    server = start()
    server.faults = [(429, {"Retry-After": "1"})]
    engine = load(model, server, batch_size=1)
    began = time.monotonic()
    assert engine.generate(REQUESTS, SAMPLING) == expected(server)
    assert time.monotonic() - began > 1
    assert len(server.asked) == 1 + 1 + len(REQUESTS)  # the trial, the one put off, all


def test_no_more_requests_at_once_than_the_batch_size(model, start):
    server = start()
    engine = load(model, server, batch_size=3, timeout=5)
    server.faults = ["hang"] * 3
    before = len(server.asked)
    stream = engine.stream(REQUESTS, SAMPLING)
    completed = dict(stream)
    assert len(completed) == len(REQUESTS)
    assert len(server.asked) - before == len(REQUESTS) + 3


def test_servers_share_the_requests(model, start):
    servers = [start(), start()]
    requests = [Request([0, 30], seed) for seed in range(60)]
    assert load(model, *servers).generate(requests, SAMPLING) == expected(servers[0], requests)
    assert all(len(server.asked) > 10 for server in servers)


def test_a_server_that_breaks_down_is_left_out(model, start):
    servers = [start(), start()]
    engine = load(model, *servers)
    servers[0].faults = [(500, {})] * 1000
    assert engine.generate(REQUESTS, SAMPLING) == expected(servers[1])


def test_a_request_that_always_fails_is_given_up_and_named(model, start, capsys):
    server = start()
    engine = load(model, server, batch_size=1)
    server.asked.append("the faults begin at once")
    server.faults = ["two choices"] * 4
    made = engine.generate(REQUESTS, SAMPLING)
    assert made == [Completion([], "error"), *expected(server)[1:]]
    assert "prompt 0 is given up: an answer with 2 choices" in capsys.readouterr().out


def test_a_server_that_always_fails_is_one_sentence(model, start):
    server = start()
    engine = load(model, server)
    server.faults = [(500, {})] * 1000
    with pytest.raises(InputError, match=r"the server fails at every request: .* status 500, not now"):
        engine.generate(REQUESTS, SAMPLING)


def test_seeds_and_sampling_are_sent(model, start):
    server = start()
    load(model, server).generate(REQUESTS[:1], Sampling(0.7, 0.9, 20, 8))
    asked = server.asked[-1]
    assert asked["prompt"] == [0, 30, 31]
    assert (asked["temperature"], asked["top_p"], asked["top_k"], asked["seed"]) == (0.7, 0.9, 20, 0)
    assert asked["stop_token_ids"] == [1, 4]
    load(model, server, seed_per="shard").generate(REQUESTS[:1], SAMPLING)
    assert "seed" not in server.asked[-1]


@pytest.mark.parametrize(
    ("options", "dialect"),
    [({"vllm": False}, "ids in, text out"), ({"vllm": False, "takes_ids": False}, "text")],
)
def test_a_server_without_ids_is_checked_by_their_number(model, start, options, dialect):
    server = start(**options)
    engine = load(model, server)
    assert engine.generate(REQUESTS, SAMPLING) == expected(server)
    assert engine.report() == {
        "server_dialect": dialect,
        "server_seed_bits": 63,
        "server_retries": 0,
        "retokenized": {"checked": 12, "differ": 0},
    }
    with pytest.raises(InputError, match="takes no top_k"):
        engine.generate(REQUESTS, Sampling(1.0, 1.0, 5, 8))


def test_text_that_is_tokenized_otherwise_is_counted(model, start):
    tokenizer = make_tokenizer()
    server = start(vllm=False)
    apart = tokenizer.convert_tokens_to_ids(["t", "h", "e"])
    server.ids = lambda seed: [*apart, 4]  # the tokenizer makes one token of these
    engine = load(model, server)
    made = engine.generate(REQUESTS, SAMPLING)
    assert all(len(completion.ids) < 4 for completion in made)
    assert engine.report()["retokenized"] == {"checked": 12, "differ": 12}


def test_a_second_bos_is_seen(model, start):
    server = start()
    engine = load(model, server)
    server.extra_prompt_tokens = 1
    with pytest.raises(InputError, match="reads a prompt of 4 tokens where 3 were sent"):
        engine.generate(REQUESTS, SAMPLING)


def test_a_server_that_is_not_there_is_one_sentence(model, start):
    server = start()
    server.close()
    with pytest.raises(InputError, match=r"127.0.0.1.*the server is not reachable; start it, or correct"):
        load(model, server.url)


def test_a_budget_that_is_used_up_is_one_sentence_and_what_is_done_is_kept(model, start, tmp_path):
    server, made = start(), {}
    engine = load(model, server, journal=tmp_path, max_calls=4, batch_size=1)
    with pytest.raises(
        InputError, match=r"endpoints.stand_in: the budget is used up after 4 calls, .*; raise"
    ):
        made |= dict(engine.stream(REQUESTS, SAMPLING))
    assert len(server.asked) == 4
    with pytest.raises(InputError, match="used up after 4 calls"):
        load(model, server, journal=tmp_path, max_calls=4)
    assert len(server.asked) == 4


def test_a_wrong_model_name_is_one_sentence(model, start):
    server = start(name="another")
    with pytest.raises(InputError, match="has no model 'policy', only 'another'; serve it under that name"):
        load(model, server)
    assert load(model, server, served_model="another").generate(REQUESTS, SAMPLING) == expected(server)


def test_the_key_comes_from_the_environment_and_is_never_said(model, start, monkeypatch):
    server = start(key="right")
    monkeypatch.setenv(KEY_VARIABLE, "right")
    assert load(model, server).generate(REQUESTS, SAMPLING) == expected(server)
    monkeypatch.setenv(KEY_VARIABLE, "secret-and-wrong")
    with pytest.raises(InputError, match=f"wants a key .* and {KEY_VARIABLE} is refused") as error:
        load(model, server)
    assert "secret" not in str(error.value)
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(InputError, match=f"{KEY_VARIABLE} is not set"):
        load(model, server)


def test_a_key_that_a_server_repeats_is_taken_out(model, start, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    server = start()
    engine = load(model, server)
    response = httpx2.Response(500, json={"error": {"message": "no account for secret here"}})
    assert engine.client._said(response) == "no account for *** here"


def test_a_request_too_long_is_refused_before_any_is_sent(model, start):
    server = start()
    engine = load(model, server)
    before = len(server.asked)
    with pytest.raises(InputError, match="long one: a prompt of 125 tokens and max_tokens 8 do not fit"):
        engine.generate([*REQUESTS, Request([5] * 125, 0, "long one")], SAMPLING)
    assert len(server.asked) == before


@given(st.text() | st.floats().map(str) | st.integers().map(str))
def test_retry_after_is_bounded(value):
    assert 0 <= retry_after(value) <= LONGEST_RETRY_AFTER


def test_retry_after_is_seconds_or_a_date():
    assert retry_after("2.5") == 2.5
    assert retry_after("Thu, 01 Jan 1970 00:00:30 GMT", now=10) == 20
    assert retry_after("Thu, 01 Jan 1970 00:00:30 GMT", now=99) == 0
    assert retry_after(None) == 0

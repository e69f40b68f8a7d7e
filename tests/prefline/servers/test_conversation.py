"""Conversations with servers that fail, know less than asked for, or share the work."""

import re

import pytest

from prefline.errors import InputError
from prefline.servers.conversation import Answer, Conversation, Request

PACE = {"attempts": 4, "first_wait": 0.01, "longest_wait": 0.05}
# An answer that is one in form, and what becomes of it.
CHOICE = {"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}
TRANSIENT = [
    (429, {"Retry-After": "0"}),
    (500, {}),
    "hang",
    "disconnect",
    "truncated JSON",
    "no choices",
    "two choices",
    "aborted",
    [],
    {"choices": [{"finish_reason": "stop"}]},
    {"choices": [{"finish_reason": "stop", "message": "fine"}]},
    {"choices": [{"finish_reason": "stop", "message": {"content": [7]}}]},
]


def talk(*servers, name="judge", concurrency=4, timeout=30, kind=Conversation, **options):
    urls = [server if isinstance(server, str) else server.url for server in servers]
    return kind(urls, name, 32, concurrency, timeout, "rewards.helpful", **PACE | options)


def requests(number):
    return [Request([{"role": "user", "content": f"{n}"}], 0.5, n, f"row {n}") for n in range(number)]


def echo(payload):
    return "You said " + payload["messages"][-1]["content"]


@pytest.mark.parametrize("fault", TRANSIENT, ids=str)
def test_what_fails_once_is_asked_again(start, fault):
    server = start(echo)
    server.faults = [fault]
    judge = talk(server, timeout=5 if fault == "hang" else 30)
    assert dict(judge.answers(requests(6))) == {n: Answer(f"You said {n}", "stop") for n in range(6)}
    assert judge.client.retries == 1


@pytest.mark.parametrize(
    ("choice", "answer"),
    [
        (CHOICE, Answer("fine", "stop")),
        (CHOICE | {"finish_reason": "length"}, Answer("fine", "length")),
        (CHOICE | {"message": {"content": ""}}, Answer("", "stop")),
        (CHOICE | {"message": {"content": None, "refusal": "no"}}, Answer("", "stop")),
        (
            CHOICE | {"message": {"content": None}, "finish_reason": "content_filter"},
            Answer("", "content_filter"),
        ),
    ],
)
def test_an_answer_without_text_is_an_answer(start, choice, answer):
    server = start()
    server.faults = [{"choices": [choice]}]
    assert dict(talk(server).answers(requests(1))) == {0: answer}


def test_a_request_is_what_was_asked_for_and_no_more(start):
    server = start()
    dict(talk(server).answers(requests(2)[1:]))
    assert server.asked[-1] == {
        "model": "judge",
        "messages": [{"role": "user", "content": "1"}],
        "temperature": 0.5,
        "max_tokens": 32,
        "seed": 1,
    }


@pytest.mark.parametrize(
    ("refused", "fields"),
    [
        (["seed"], {"max_tokens"}),
        (["max_tokens"], {"max_completion_tokens", "seed"}),
        (["max_tokens", "seed"], {"max_completion_tokens"}),
        (["temperature"], {"max_tokens", "seed"}),
        (["temperature", "max_tokens", "seed"], {"max_completion_tokens"}),
    ],
)
def test_servers_that_know_less_are_found_out_before_the_first_request(start, refused, fields):
    server = start(refused=refused)
    assert len(dict(talk(server).answers(requests(3)))) == 3
    assert len(server.asked) == 1 + 3
    fields = fields if "temperature" in refused else fields | {"temperature"}
    assert all(set(asked) - {"model", "messages"} == fields for asked in server.asked)


def test_a_server_that_refuses_more_is_quoted(start):
    server = start(refused=["max_tokens", "max_completion_tokens"])
    with pytest.raises(InputError, match=r"refuses a plain request for 'judge': .*: max_tokens.*max_compl"):
        talk(server)


def test_what_a_server_gives_up_is_named_and_the_rest_goes_on(start, capsys):
    server = start(echo)
    judge = talk(server, concurrency=1)
    server.faults = ["no choices"] * 4 + [(400, {})]
    made = dict(judge.answers(requests(4)))
    assert [n for n in made if made[n] is None] == [0, 1]
    said = capsys.readouterr().out
    assert "row 0 is given up: an answer with 0 choices" in said
    assert re.search("row 1 is given up: .* status 400, not now", said)


def test_servers_that_fail_at_everything_are_one_sentence(start):
    server = start()
    judge = talk(server)
    server.faults = [(500, {})] * 1000
    with pytest.raises(InputError, match=r"the server fails at every request: .* status 500, not now"):
        list(judge.answers(requests(40)))


def test_no_more_requests_at_once_than_wanted(start):
    server = start()
    list(talk(server, concurrency=3).answers(requests(60)))
    assert server.most <= 3


def test_servers_share_the_requests(start):
    servers = [start(), start()]
    list(talk(*servers).answers(requests(60)))
    assert all(len(server.asked) > 10 for server in servers)

"""The form of requests is found by trying, and what the journal holds of their answers outlives edits."""

from pathlib import Path

import pytest
import yaml
from stand_in import endpoint
from test_conversation import echo, requests, talk
from test_dialects import error

from prefline.config import endpoints
from prefline.engines import asking
from prefline.servers import conversation
from prefline.servers.conversation import NEUTRAL, Anthropic, Conversation
from prefline.servers.endpoint import Endpoint


@pytest.mark.parametrize(
    ("refusal", "form"),
    [
        (
            "'temperature' does not support 0.0 with this model. Only the default (1) value is supported.",
            "max_tokens+seed-temperature",
        ),
        (
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            "max_completion_tokens+seed",
        ),
        ("seed: Input should be less than 2147483648", "max_tokens+seed31"),
        ("Unrecognized request argument supplied: seed", "max_tokens"),
    ],
)
def test_forms_are_found_by_the_refusals_words(start, capsys, refusal, form):
    server = start(echo)

    def reply(payload):
        found = conversation.FORMS[form]
        fits = ("temperature" in payload) == found.temperature and found.limit in payload
        fits = fits and payload.get("seed", 0) < 2**found.seed and ("seed" in payload) == bool(found.seed)
        return None if fits else (400, error(refusal))

    server.replies = reply
    judge = talk(server)
    assert str(judge.form) == form and f"requests of the form {form}" in capsys.readouterr().out
    assert len(dict(judge.answers(requests(3)))) == 3 and len(server.received) == 2 + 3
    assert dict(talk(server, form=form).answers(requests(1)))


def test_the_config_may_name_every_form():
    described = yaml.safe_load(Path("rules/schemas/config.schema.yaml").read_text(encoding="utf-8"))
    assert set(described["$defs"]["endpoint"]["properties"]["form"]["enum"]) == set(conversation.FORMS)


@pytest.mark.parametrize("kind", [Conversation, Anthropic])
def test_every_request_has_the_fields_and_parameters_that_an_endpoint_adds(start, kind):
    server = start(echo)
    asked = Endpoint(**endpoint(server, extra_body={"effort": "low"}, extra_query={"api-version": "1"}))
    extra = {"extra_body": asked.extra_body, "extra_query": asked.extra_query}
    assert asked.client(None) == {"meter": None} | extra
    judge = talk(server, kind=kind, **extra)
    assert len(dict(judge.answers(requests(2)))) == 2 and server.query == "api-version=1"
    assert {payload["effort"] for payload in server.received} == {"low"}


def test_no_endpoint_may_set_a_field_that_requests_have(start):
    server = start(echo)
    for kind in (Conversation, Anthropic):
        list(talk(server, kind=kind).answers(requests(1)))
    assert {field for payload in server.received for field in payload} <= endpoints.OWN_FIELDS
    assert NEUTRAL.keys() <= endpoints.OWN_FIELDS


def test_paid_answers_outlive_edits_of_the_client():
    """The contexts of journals with paid answers; an edit of these lines costs users all their answers."""
    asked = Endpoint(**endpoint("http://127.0.0.1:1/v1"))
    context = asking.context(asking.Settings("", 32, 1), asked)
    assert context == {
        "script": "prefline/servers/conversation.py",
        "code": "55a604427244713e89debd8b49b501e6",
        "model": None,
        "packages": {},
        "settings": {"name": "judge", "max_tokens": 32, "kind": "openai", "form": None},
    }


def test_text_that_a_journal_has_is_made_valid_too():
    found = asking.until_read(
        {"a": asking.Question([], "a")},
        lambda answer: answer.text.encode() and 1,
        lambda wanted: {key: ["half \ud83d", "stop", None, None] for key in wanted},
        seed=1,
    )
    assert found[0] == {"a": 1} and found[2]["a"].text == "half �"


def test_new_models_of_anthropic_take_no_temperature(start):
    server = start(echo, refused=["temperature"])
    judge = Anthropic([server.url], "judge", 32, 4, 5, "endpoints.claude", attempts=2, first_wait=0.01)
    assert len(dict(judge.answers(requests(3)))) == 3
    assert set(server.asked[-1]) == {"model", "messages", "max_tokens"}

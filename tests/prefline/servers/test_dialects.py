"""Servers say the same in many ways: each is right, or refused in one sentence with the server's words."""

import collections
import threading
import time

import pytest
from small_model import make_model, make_tokenizer
from stand_in import StandIn
from test_conversation import CHOICE, echo, requests, talk
from test_server_faults import REQUESTS, SAMPLING, load

from prefline.engines import Completion, Request, Sampling
from prefline.errors import InputError
from prefline.servers.conversation import NEUTRAL, Answer

HTML = "<html><body>Sign in to the network</body></html>"


def error(message, **fields):
    return {"error": {"message": message, **fields}}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "policy", make_tokenizer(), weights=True)


@pytest.fixture
def engines(model):
    """engines(server): a server engine of a small model, for a StandIn made by engines.start(...)."""
    started = []

    def start_one(**options):
        started.append(StandIn(make_tokenizer(), **options))
        return started[-1]

    def make(server, **options):
        return load(model, server, **options)

    make.start = start_one
    yield make
    for server in started:
        server.close()


@pytest.mark.parametrize(
    ("reason", "known"),
    [
        *[
            (word, "stop")
            for word in ("eos", "eos_token", "STOP", "end_turn", "stop_sequence", "COMPLETE", None)
        ],
        *[(word, "length") for word in ("length", "MAX_TOKENS", "model_length", "max_tokens")],
        *[(word, "content_filter") for word in ("SAFETY", "refusal", "content_filter")],
    ],
)
def test_a_complete_answer_is_never_asked_for_again(start, reason, known):
    server = start()
    judge = talk(server)
    server.replies = lambda payload: (200, {"choices": [CHOICE | {"finish_reason": reason}]})
    assert dict(judge.answers(requests(5))) == {n: Answer("fine", known) for n in range(5)}
    assert len(server.received) == 1 + 5


@pytest.mark.parametrize("ended", ["eos", "eos_token", "STOP", None])
def test_what_is_sampled_is_what_is_kept(engines, ended):
    """No answer that ended is drawn again: as many are cut off as the server sent."""
    server = engines.start(vllm=False, takes_ids=False)
    engine = engines(server, batch_size=8)
    sent = collections.Counter()

    def reply(payload):
        reason = "length" if payload["seed"] % 4 == 0 else ended
        sent[reason] += 1
        return 200, {"choices": [{"text": "the", "finish_reason": reason}]}

    server.replies = reply
    made = engine.generate([Request([0, 30], seed) for seed in range(200)], SAMPLING)
    kept = collections.Counter(one.finish_reason for one in made)
    assert kept == {"length": 50, "stop": 150} and sent == {"length": 50, ended: 150}


@pytest.mark.parametrize("reason", ["done", "???", 7])
def test_an_unknown_end_is_refused_at_once(start, engines, reason):
    server = start()
    server.replies = lambda payload: (200, {"choices": [CHOICE | {"finish_reason": reason}]})
    with pytest.raises(InputError, match=f"finish_reason {reason!r}, which is not known".replace("?", r"\?")):
        talk(server)
    assert len(server.received) == 1


# Replies that end a job, and words of the sentence.
ENDS = {
    "402": ((402, error("Payment required")), "Payment required"),
    "quota": ((429, error("You exceeded your current quota", code="insufficient_quota")), "used up"),
    "credit": ((400, error("Your credit balance is too low to access the API")), "used up"),
    "no funds": ((403, error("Insufficient balance")), "used up"),
    "402 in a 200": ((200, error("Insufficient credits", code=402)), "Insufficient credits"),
    "model gone": ((404, error("The model `judge` does not exist")), "no such model"),
    "no such path": ((404, "<html>not found</html>"), "no such model or address"),
    "method": ((405, ""), "no such model or address"),
    "key": ((401, error("bad key")), "wants a key"),
    "moved": ((307, "", {"Location": "https://elsewhere.example/v1"}), "elsewhere.example"),
    "unknown end": ((200, {"choices": [CHOICE | {"finish_reason": "done"}]}), "not known"),
}


@pytest.mark.parametrize(("reply", "words"), ENDS.values(), ids=ENDS)
def test_what_no_retry_mends_ends_a_trial_at_once(start, reply, words):
    server = start()
    server.replies = lambda payload: reply
    began = time.monotonic()
    with pytest.raises(InputError) as refused:
        talk(server)
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert len(server.received) <= 3 and time.monotonic() - began < 60


@pytest.mark.parametrize(("reply", "words"), ENDS.values(), ids=ENDS)
def test_in_mid_run_it_ends_the_job_which_keeps_what_is_under_way(start, reply, words):
    server, sent = start(echo, seconds=0.05), []
    lock = threading.Lock()

    def after(payload):
        with lock:
            if len(sent) == 25:
                return reply
            sent.append(payload["messages"][0]["content"])
            return None

    judge = talk(server, concurrency=8, timeout=5)
    server.replies, kept = after, {}
    with pytest.raises(InputError, match=words):
        for index, answer in judge.answers(requests(40)):
            kept[index] = answer
    # Whatever the server answered is kept, nothing else, and no more was asked than was under way.
    assert {str(index) for index in kept} == set(sent) and len(sent) == 25
    assert None not in kept.values() and judge.client.given_up == []
    assert len(server.received) <= 1 + 25 + 8


def test_the_last_calls_of_a_server_that_refuses_are_no_verdicts(start):
    """A refusal of unknown words, of the last 5 of 20: the trial tells that they are not to blame."""
    server = start(echo)
    judge = talk(server, concurrency=1)
    server.replies = lambda payload: (400, error("no")) if len(server.received) > 16 else None
    with pytest.raises(InputError, match=r"refuses what it took before: .* status 400, no"):
        dict(judge.answers(requests(20)))


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_prompts_refusal_is_that_prompts(start, engines, status):
    server = start(echo)
    judge = talk(server)
    server.replies = lambda payload: (
        (status, error("a bad prompt")) if payload["messages"][0]["content"] == "39" else None
    )
    made = dict(judge.answers(requests(40)))
    assert [n for n in made if made[n] is None] == [39] and len(server.received) == 1 + 40
    server = engines.start()
    engine = engines(server)
    server.replies = lambda payload: (status, error("a bad prompt")) if payload["seed"] == 3 else None
    made = engine.generate(REQUESTS, SAMPLING)
    assert made[3] == Completion([], "error") and made[4] == Completion(server.ids(4), "stop")


@pytest.mark.parametrize("reply", [(400, error("broken")), (500, error("broken"))], ids=str)
def test_a_server_that_refuses_gets_no_more_load_than_one_that_works(start, reply):
    broken, works = start(echo), start(echo, seconds=0.02)
    judge = talk(broken, works, concurrency=8, timeout=5)
    broken.replies = lambda payload: reply
    made = dict(judge.answers(requests(200)))
    assert len(broken.received) <= len(works.received)
    assert sum(answer is not None for answer in made.values()) >= 180


# Replies to which one may ask again, but not often: each may be charged for.
CHARGED = {
    "html": (200, HTML),
    "an error": (200, error("the upstream has failed", code="x")),
    "no object": (200, [1]),
    "no choices": (200, {"choices": []}),
    "an error in the choice": (200, {"choices": [CHOICE | {"error": {"message": "the upstream"}}]}),
    "null without text": (200, {"choices": [{"message": {"content": None}, "finish_reason": None}]}),
    "deep": (200, "[" * 100_000),
}


@pytest.mark.parametrize("reply", CHARGED.values(), ids=CHARGED)
def test_what_may_be_charged_for_is_tried_three_times(start, reply):
    server = start()
    server.replies = lambda payload: reply
    began = time.monotonic()
    with pytest.raises(InputError, match=r"the server answers no request: .*(an answer|upstream)"):
        talk(server, attempts=10)
    assert len(server.received) == 3 and time.monotonic() - began < 60


def test_the_providers_words_are_in_the_sentence(start):
    server = start()
    server.replies = lambda payload: (200, HTML)
    with pytest.raises(InputError, match="Sign in to the network"):
        talk(server)


def test_a_rate_limit_in_words_of_an_empty_account_passes(start):
    server = start(echo)
    judge = talk(server)
    server.replies = lambda payload: (
        (429, error("You exceeded your current quota. Please retry in 0.1 s."))
        if len(server.received) == 2
        else None
    )
    assert len(dict(judge.answers(requests(6)))) == 6 and judge.client.given_up == []


@pytest.mark.parametrize(
    "models",
    [
        (403, error("no scope model.read")),
        (401, ""),
        (404, ""),
        (500, ""),
        (200, HTML),
        (200, [{"id": "judge"}]),
        (200, ["judge"]),
        (200, {"models": [{"name": "judge"}]}),
        (200, {"data": [{"id": "gpt-4o-2024"}]}),  # base models, where the model is a deployment
        (200, {"data": None}),
        (200, {"data": "judge"}),
        (200, "null"),
    ],
    ids=str,
)
def test_the_list_of_models_is_a_hint(start, models):
    server = start(echo)
    server.models = models
    assert dict(talk(server).answers(requests(2))) == {n: Answer(f"You said {n}", "stop") for n in range(2)}


@pytest.mark.parametrize("models", [(403, ""), (200, ["policy"]), (200, [{"id": "policy"}])], ids=str)
def test_the_list_of_models_is_a_hint_for_engines_too(engines, models):
    server = engines.start()
    server.models = models
    assert len(engines(server).generate(REQUESTS, SAMPLING)) == len(REQUESTS)


CONTENTS = {
    "parts": [{"type": "text", "text": "fi"}, {"type": "text", "text": "ne"}],
    "reasoning": [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "fine"},
    ],
    "strings": ["fine"],
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_content_may_be_parts(start, content):
    server = start()
    server.replies = lambda payload: (
        200,
        {"choices": [CHOICE | {"message": {"content": content}}], "usage": None},
    )
    assert dict(talk(server).answers(requests(1))) == {0: Answer("fine", "stop")}


def test_text_is_made_valid_before_it_is_kept(start, capsys):
    server = start(lambda payload: "half \ud83d, whole \ud83d\ude00 [[7]]")
    judge = talk(server)
    (answer,) = dict(judge.answers(requests(1))).values()
    assert answer.text == "half �, whole 😀 [[7]]"
    assert answer.text.encode()
    judge.close()
    assert "answers had text that is not Unicode; � replaces it" in capsys.readouterr().out


def test_a_refused_trial_is_few_requests(start):
    server = start()
    server.replies = lambda payload: (400, error("no"))
    with pytest.raises(InputError, match=r"refuses a plain request for 'judge': .* no"):
        talk(server)
    assert len(server.received) <= 3


def test_seeds_of_32_bits_are_found(engines):
    server = engines.start()
    server.replies = lambda payload: (
        (400, error("seed must be a 32-bit integer")) if payload.get("seed", 0) >= 2**32 else None
    )
    engine = engines(server)
    assert engine.generate(REQUESTS, SAMPLING)[3].ids == server.ids(3)
    assert engine.report()["server_seed_bits"] == 31
    engine.generate([Request([0, 30], 2**62 + 5)], SAMPLING)
    assert server.asked[-1]["seed"] == 5


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"token_ids": [5, 999_999], "finish_reason": "length"}, "vocabulary lacks"),
        ({"token_ids": [5] * 9, "finish_reason": "length"}, "9 tokens where 8 are the most"),
        ({"token_ids": [5, 6], "finish_reason": "length"}, "cuts an answer off after 2 tokens of 8"),
        ({"token_ids": ["a"], "finish_reason": "stop"}, "vocabulary lacks"),
    ],
)
def test_ids_that_cannot_be_are_refused(engines, choice, words):
    server = engines.start()
    engine = engines(server)
    server.replies = lambda payload: (200, {"choices": [choice]})
    with pytest.raises(InputError, match=words):
        engine.generate(REQUESTS, SAMPLING)


def test_a_filtered_completion_is_not_drawn_again(engines):
    server = engines.start()
    engine = engines(server)
    server.replies = lambda payload: (
        (200, {"choices": [{"text": "", "finish_reason": "content_filter"}]})
        if payload["seed"] == 3
        else None
    )
    made = engine.generate(REQUESTS, SAMPLING)
    assert made[3] == Completion([], "error") and len(server.received) == 1 + len(REQUESTS)


def defaults_of_vllm():
    """What the installed vLLM may take from a model's generation_config.json, by its own lists."""
    chat = pytest.importorskip("vllm.entrypoints.openai.chat_completion.protocol").ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    return [
        set(kind.__private_attributes__["_DEFAULT_SAMPLING_PARAMS"].default)
        for kind in (chat, CompletionRequest)
    ]


def test_every_default_that_a_server_could_fill_in_is_sent(start, engines):
    chat, completion = defaults_of_vllm()
    server = start(echo)
    server.models = (200, {"data": [{"id": "judge", "owned_by": "vllm"}]})
    dict(talk(server).answers(requests(1)))
    assert chat - set(server.asked[-1]) == set()
    server = engines.start()
    engines(server).generate(REQUESTS[:1], Sampling(0.7, 0.9, 20, 8))
    asked = server.asked[-1]
    assert completion - set(asked) == set()
    assert {name: asked[name] for name in NEUTRAL} == NEUTRAL | {"top_k": 20}


def test_a_server_that_fills_in_and_takes_text_gets_them_too(engines):
    server = engines.start(takes_ids=False)
    server.replies = lambda payload: (
        (400, error("unknown field return_token_ids")) if "return_token_ids" in payload else None
    )
    engines(server).generate(REQUESTS, SAMPLING)
    assert isinstance(server.asked[-1]["prompt"], str)
    assert {name: server.asked[-1][name] for name in NEUTRAL} == NEUTRAL

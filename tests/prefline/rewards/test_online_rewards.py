"""Rewards of what a policy samples while it trains are those that rank: every kind, summed, penalized."""

import math

import numpy as np
import pytest
import small_model
from stand_in import StandIn, endpoint

from prefline.engines.model_files import ModelFiles
from prefline.errors import InputError
from prefline.rewards import Dialogue, combine, pairwise, scorers, tournament
from prefline.rewards.online import Rewards, Sampled
from prefline.servers import conversation
from prefline.servers.client import Client
from prefline.servers.endpoint import Endpoint
from prefline.text import chat

TOKENIZER = small_model.make_tokenizer()
END, LONG = TOKENIZER.eos_token_id, 512
LENGTH = {"kind": "function", "function": "prefline/rewards/functions.py:length", "arguments": {}}
TEXTS = ["a cat", "the mat", "a cat", "sat sat sat"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A policy, a classifier with two heads, and a language model that compares."""
    world = tmp_path_factory.mktemp("rewards")
    small_model.make_model(world / "sft", TOKENIZER)
    shape = {"max_position_embeddings": LONG, "pad_token_id": TOKENIZER.pad_token_id}
    template = small_model.make_tokenizer(small_model.CHATML, bos_token=None)
    small_model.make_model(world / "heads", template, "LlamaForSequenceClassification", num_labels=2, **shape)
    small_model.make_model(world / "compares", TOKENIZER, **shape)
    return world


def samples(texts=TEXTS, cut=()):
    """Sampled to the prompts p0 and p1, two texts each; those at the places `cut` have no end token."""
    made = []
    for place, text in enumerate(texts):
        messages = [{"role": "user", "content": f"Say {place // 2}!"}]
        ids = TOKENIZER(text, add_special_tokens=False)["input_ids"] + ([] if place in cut else [END])
        row = {"prompt_id": f"p{place // 2}", "messages": messages, "reference": None}
        made.append(Sampled(row | {"prompt_ids": chat.prompt_ids(TOKENIZER, messages)}, ids))
    return made


def dialogues(texts=TEXTS):
    return [
        Dialogue(sample.prompt["messages"], text, "here")
        for sample, text in zip(samples(texts), texts, strict=True)
    ]


def rewards(world, tmp_path, sections, endpoints=None, length_penalty=0.0, missing_eos_penalty=0.0):
    sections = {name: {"weight": 1.0, "normalize": "none"} | section for name, section in sections.items()}
    models = {name: str(world / name) for name in ("heads", "compares")}
    policy, journal = ModelFiles(world / "sft"), tmp_path / "journal"
    penalties = (length_penalty, missing_eos_penalty)
    return Rewards(sections, models, endpoints or {}, policy, *penalties, 1024, 8, journal, seed=1)


HEADS = {"kind": "classifier", "model": "heads", "dtype": "float32", "head_weights": [1.0, -2.0]}
COMPARES = {"kind": "pairwise", "model": "compares", "dtype": "float32", "opponents": 0}


def test_models_functions_and_their_sum_are_as_ranked(world, tmp_path):
    sections = {
        "heads": HEADS | {"weight": 3.0, "normalize": "prompt"},
        "short": LENGTH | {"weight": -0.5},
        "better": COMPARES,
    }
    got = rewards(world, tmp_path, sections)(samples(), "step 1")
    scorer = scorers.load(str(world / "heads"), 1024, "float32", [1.0, -2.0])
    heads = scorers.score(scorer, dialogues())
    assert got.parts["heads"] == pytest.approx(heads.astype(float), abs=1e-5)
    assert got.parts["short"].tolist() == [-len(text) for text in TEXTS]
    comparer = pairwise.load(str(world / "compares"), 1024, "float32")
    for rows in ([0, 1], [2, 3]):
        a, b = sorted(TEXTS[row] for row in rows)
        messages = dialogues()[rows[0]].messages
        ((_, (chance,)),) = comparer.batches([pairwise.Comparison(messages, a, b, "here")])
        wanted = tournament.score([TEXTS[row] for row in rows], {(a, b): chance})
        assert got.parts["better"][rows] == pytest.approx([reward for reward, _ in wanted], abs=1e-5)
    normalized = combine.normalized(heads.astype(float), "prompt", np.array([0, 0, 1, 1]), None)
    wanted = 3.0 * normalized - 0.5 * got.parts["short"] + got.parts["better"]
    assert got.reward == pytest.approx(wanted, abs=1e-4)
    plain = rewards(world, tmp_path, sections)(samples(), "held out", normalize=False)
    assert plain.reward == pytest.approx(wanted + 3.0 * (heads - normalized), abs=1e-4)


def test_equal_texts_of_a_prompt_are_even_and_compared_with_nobody(world, tmp_path):
    got = rewards(world, tmp_path, {"better": COMPARES})(samples(["a", "a", "b", "b"]), "step 1")
    assert got.reward.tolist() == [0.5] * 4


def test_what_is_cut_off_and_what_is_long_costs(world, tmp_path):
    cost = {"length_penalty": 0.25, "missing_eos_penalty": 2.0}
    plain = rewards(world, tmp_path, {"short": LENGTH})(samples(cut=[1]), "step 1")
    got = rewards(world, tmp_path, {"short": LENGTH}, **cost)(samples(cut=[1]), "step 1")
    tokens = np.array([len(sample.ids) for sample in samples(cut=[1])])
    assert got.reward == pytest.approx(plain.reward - 0.25 * tokens - 2.0 * np.array([0, 1, 0, 0]))
    assert got.parts["short"].tolist() == plain.parts["short"].tolist(), "the end token is no text"


def test_a_judge_is_asked_and_its_verdicts_are_kept(world, tmp_path, monkeypatch):
    paces = []

    def client(servers, batch_size, timeout, **more):
        paces.append((batch_size, timeout))
        return Client(servers, batch_size, timeout, **more)

    monkeypatch.setattr(conversation, "Client", client)
    (tmp_path / "rubric.txt").write_text("{prompt}\n\n<{completion}>\n\nEnd with [[number]].")

    def says(payload):
        asked = payload["messages"][0]["content"]
        return "No." if "<the mat>" in asked else f"Well. [[{2 + ('sat' in asked)}]]"

    section = {
        **{"kind": "judge", "rubric": str(tmp_path / "rubric.txt"), "lowest": 1, "highest": 10},
        "max_tokens": 64,
    }
    server = StandIn(name="judge", says=says)
    try:
        judged = rewards(
            world, tmp_path, {"asked": section}, {"asked": Endpoint(**endpoint(server, timeout=60))}
        )
        first = judged(samples(), "step 1").reward.tolist()
        assert [first[0], first[2], first[3]] == [2.0, 2.0, 3.0]
        assert math.isnan(first[1]), "no verdict is no reward"
        asked = len(server.asked)
        assert judged(samples([TEXTS[0]]), "step 2").reward.tolist() == [2.0]
        assert len(server.asked) == asked, "the journal has it"
        with pytest.raises(InputError, match="step 3: none of 1 completions has a reward"):
            judged(samples([TEXTS[1]]), "step 3")
    finally:
        server.close()
    assert paces == [(8, 60)], "as the job's resources and the endpoint say"

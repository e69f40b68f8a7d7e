"""Rotary positions that depend on a sequence's length: longer sequences are refused everywhere."""

from types import SimpleNamespace

import pytest
import torch
from small_model import make_model
from transformers import AutoModelForCausalLM

from prefline import engines
from prefline.engines import transformers as engine
from prefline.errors import InputError
from prefline.training import logps, weights

ROPE = {
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 32,
        "short_factor": [1.0] * 8,
        "long_factor": [4.0] * 8,
    },
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
}


@pytest.fixture(params=ROPE)
def directory(request, tmp_path):
    contexts = {"max_position_embeddings": 128 if request.param == "longrope" else 32}
    head = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    return make_model(tmp_path / "model", rope_parameters=ROPE[request.param], **contexts, **head)


def test_sampling(directory):
    sampler = engine.Engine(str(directory), 4, "float32")
    sampling = engines.Sampling(1.0, 1.0, 0, 12)
    sampler.generate([engines.Request([5] * 20, 1)], sampling)
    with pytest.raises(InputError, match="32"):
        sampler.generate([engines.Request([5] * 21, 1)], sampling)


def test_log_probabilities(directory):
    model = logps.load(directory, "float32")
    list(logps.score(model, [[5] * 20], [[6] * 12], 1.0, 100))
    with pytest.raises(InputError, match="a sequence of 33 tokens is longer than 32"):
        list(logps.score(model, [[5] * 20], [[6] * 13], 1.0, 100))


def test_trainers_of_libraries(directory):
    settings = SimpleNamespace(
        model=directory, seed=1, dtype="float32", peft=None, optim="adamw_torch", attn_implementation="sdpa"
    )
    model = weights.load(settings, AutoModelForCausalLM)
    model(input_ids=torch.full((1, 32), 5))
    with pytest.raises(InputError, match="a sequence of 33 tokens is longer than 32"):
        model(input_ids=torch.full((1, 33), 5))

"""Samples of online trainings, to train on or held out: made with a cache, scored whole, ended as we say."""

import contextlib
import math
import types
from unittest import mock

import pytest
import small_model
import torch
from online_training import ENDS, TOKENIZER, TRAINING, make_world, train, trainer_of
from transformers import GenerationMixin

from prefline import engines, files
from prefline.data import tables
from prefline.engines.transformers import Engine
from prefline.errors import InputError
from prefline.text import chat
from prefline.training import held_out_samples


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("online"))


@pytest.fixture(scope="module")
def trained(world):
    """A policy that the workflow trained, as it was written when that switched the cache off."""
    train(world, world / "trained", "rloo", num_train_epochs=0.25)
    path = world / "trained/model/config.json"
    config = files.read_json(path)
    assert config["use_cache"] is True
    files.write_json(path, config | {"use_cache": False})
    return world / "trained/model"


@contextlib.contextmanager
def widths_of_forwards(monkeypatch):
    """[[tokens a row of each forward pass] of each batch that is decoded within]."""
    decoded, decoding = [], []

    def noted(decode):
        def note(*args, **kwargs):
            decoded.append([])
            decoding.append(True)
            made = decode(*args, **kwargs)
            decoding.pop()
            return made

        return note

    def look(module, inputs):
        if decoding and isinstance(module, torch.nn.Embedding):
            decoded[-1].append(inputs[0].shape[1])

    with monkeypatch.context() as patch, torch.nn.modules.module.register_module_forward_pre_hook(look):
        patch.setattr(GenerationMixin, "generate", noted(GenerationMixin.generate))
        patch.setattr(Engine, "_decode", noted(Engine._decode))
        yield decoded


@pytest.mark.parametrize(
    ("method", "changed"),
    [
        ("rloo", {}),
        ("grpo", {"gradient_checkpointing": True}),
        pytest.param("rloo", {"peft": small_model.LORA}, marks=pytest.mark.slow),
        ("ppo", {}),
        pytest.param("ppo", {"gradient_checkpointing": True}, marks=pytest.mark.slow),
    ],
)
def test_after_the_prompt_a_forward_pass_has_one_token_a_row(
    world, trained, tmp_path, method, changed, monkeypatch
):
    """Sampling, to train on or held out, whatever the config of the start says."""
    changed = {"model": trained, "num_train_epochs": 0.5} | changed
    with widths_of_forwards(monkeypatch) as decoded:
        train(world, tmp_path, method, **changed)
    prompt = len(chat.prompt_ids(TOKENIZER, [{"role": "user", "content": "Say p10!"}]))
    assert len(decoded) > 2, "held out before and after, and to train on"
    assert {first for first, *_ in decoded} <= {prompt, prompt - 1}
    assert {width for _, *rest in decoded for width in rest} == {1}
    if "peft" not in changed:
        assert files.read_json(tmp_path / "model/config.json")["use_cache"] is False, "as the start's"


@pytest.mark.slow
def test_recomputed_activations_change_no_sample(world, trained, tmp_path):
    """While they are, transformers hides the cache from the layers of a model."""
    for method in ("rloo", "ppo"):
        kept, recomputed = (
            train(
                world,
                tmp_path / f"{method}-{way}",
                method,
                model=trained,
                num_train_epochs=1 if method == "ppo" else 0.5,
                gradient_checkpointing=way,
            )[0]
            for way in (False, True)
        )
        assert all(torch.equal(kept[name], recomputed[name]) for name in kept)


def test_the_engine_has_a_cache_whatever_the_config_says(trained, monkeypatch):
    engine = Engine(str(trained), 8, "float32")
    ids = chat.prompt_ids(TOKENIZER, [{"role": "user", "content": "Say p1!"}])
    requests = [engines.Request(ids, seed, f"prompt_id p{seed}") for seed in range(4)]
    with widths_of_forwards(monkeypatch) as decoded:
        engine.generate(requests, engines.Sampling(1.0, 1.0, 0, 12))
    ((first, *rest),) = decoded
    assert first == len(ids) and rest and set(rest) == {1}


def measured(made, world, batch_tokens):
    """What held_out.evaluate says of a trainer's policy, and how many completions were decoded together."""
    sizes, decode = [], held_out_samples.Sampler._decode

    def counted(sampler, requests, sampling):
        sizes.append(len(requests))
        return decode(sampler, requests, sampling)

    settings = types.SimpleNamespace(seed=1, dtype="float32", model=world / "sft")
    sampling = engines.Sampling(1.0, 1.0, 0, 12)
    models = made.model, made.ref_model, made.accelerator
    prompts = tables.read_rows(world / "test-00000.parquet", tables.PROMPTS)
    with mock.patch.object(held_out_samples.Sampler, "_decode", counted):
        found = held_out_samples.evaluate(
            settings, sampling, *models, prompts, made.rewards, "now", batch_tokens
        )
    return found, sizes, max(len(prompt["prompt_ids"]) for prompt in prompts) + 12


def test_held_out_completions_are_those_whatever_fits_in_memory_at_once(world, tmp_path):
    made, _ = trainer_of(world, tmp_path, "rloo")
    (means, said), sizes, longest = measured(made, world, 100_000)
    assert sizes == [16]
    for batch_tokens, most in ((1, 1), (longest * 5 + 1, 5)):
        (cut_means, cut_said), sizes, _ = measured(made, world, batch_tokens)
        assert max(sizes) == most and sum(sizes) == 16
        assert cut_said == said
        assert cut_means == pytest.approx(means, abs=1e-4)


def test_held_out_completions_that_cannot_be_measured_are_one_sentence(world, tmp_path):
    made, _ = trainer_of(world, tmp_path, "rloo")
    torch.nn.init.constant_(made.model.get_output_embeddings().weight, math.nan)
    with pytest.raises(
        InputError, match="held-out prompts now: no completion has both a reward and a finite"
    ):
        measured(made, world, 100)


def test_measuring_leaves_the_attention_that_trl_computes_padded_batches_with(world, tmp_path):
    made, _ = trainer_of(world, tmp_path, "rloo")
    attention = made.model.config._attn_implementation
    measured(made, world, 100)
    assert made.model.config._attn_implementation == attention


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_the_ids_that_trl_trains_on_are_ours(world, tmp_path, method):
    """One BOS, no template around the template, and nothing behind whichever token ended a completion."""
    made, train = trainer_of(world, tmp_path, method)
    made.model.train()
    batch = made._generate_and_score_completions([{"prompt": row["prompt_id"]} for row in train])
    ended = set()
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    for row, ids, mask, completion, said in zip(
        train, *(batch[name].tolist() for name in names), strict=True
    ):
        prompt = [token for token, real in zip(ids, mask, strict=True) if real]
        assert prompt == row["prompt_ids"]
        assert prompt.count(TOKENIZER.bos_token_id) == 1
        spoken = [token for token, real in zip(completion, said, strict=True) if real]
        assert not set(spoken[:-1]) & set(ENDS)
        assert spoken[-1] in ENDS or len(spoken) == TRAINING["max_completion_length"]
        ended.add(spoken[-1])
    assert len(ended & set(ENDS)) > 2, "not the tokenizer's end token alone"


def test_what_ppo_scores_is_ours(world, tmp_path):
    made, train = trainer_of(world, tmp_path, "ppo")
    said = [[101, 102, ENDS[-1]], [101, 102, 103, 104]]
    names = [row["prompt_id"] for row in train[:2]]
    rewards, parts = made.score(names, said)
    assert rewards.tolist() == [-len(TOKENIZER.decode(ids)) for ids in (said[0][:2], said[1])]
    assert parts == {"rewards/short": pytest.approx(rewards.mean().item()), "rewards/short/failed": 0.0}
    rollout, measured = made.sample(names)
    for row, ids, real in zip(train[:2], rollout.ids.tolist(), rollout.attention.tolist(), strict=True):
        spoken = [token for token, there in zip(ids, real, strict=True) if there]
        assert spoken[: len(row["prompt_ids"])] == row["prompt_ids"]
        completion = spoken[len(row["prompt_ids"]) :]
        assert not set(completion[:-1]) & set(ENDS)
        assert completion[-1] in ENDS or len(completion) == TRAINING["max_completion_length"]
    assert measured["completions/mean_length"] == rollout.mask.sum().item() / 2

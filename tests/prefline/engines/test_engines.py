"""The transformers engine against the model it runs: a small Llama with random weights."""

import itertools
import json

import numpy as np
import pytest
import torch
from small_model import make_model, make_tokenizer
from transformers import GenerationConfig, LlamaForCausalLM

from prefline import engines
from prefline.engines import Request, Sampling
from prefline.engines.pace import Pace
from prefline.engines.transformers import pick, uniform_streams
from prefline.errors import InputError
from prefline.text.ends import end_tokens


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer):
    return make_model(tmp_path_factory.mktemp("models") / "policy", tokenizer)


@pytest.fixture(scope="module")
def engine(model):
    return engines.load("transformers", model, 16, "float32")


def prompts(number, seed=0, longest=30):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest, number)
    return [[0, *generator.integers(5, 260, length).tolist()] for length in lengths]


def greedy(max_tokens):
    return Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=max_tokens)


@pytest.mark.parametrize("ends", [[1, 4], list(range(1, 30))])
def test_greedy_is_model_generate_one_at_a_time(tmp_path, tokenizer, ends):
    make_model(tmp_path, tokenizer, ends=ends)
    requests = [Request(ids, seed=0) for ids in prompts(20)]
    requests += requests[:5]
    completions = engines.load("transformers", tmp_path, 16, "float32").generate(requests, greedy(70))
    reference = LlamaForCausalLM.from_pretrained(tmp_path)
    reference.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=2)
    for request, completion in zip(requests, completions, strict=True):
        alone = reference.generate(torch.tensor([request.prompt_ids]), max_new_tokens=70, do_sample=False)
        assert completion.ids == alone[0, len(request.prompt_ids) :].tolist()


def test_a_completion_does_not_depend_on_its_batch(model):
    requests = [Request(ids, seed) for seed, ids in enumerate(prompts(64, seed=1))]
    sampling = Sampling(temperature=0.9, top_p=0.95, top_k=50, max_tokens=12)
    expected = engines.load("transformers", model, 64, "float32").generate(requests, sampling)
    for batch_size in (1, 3):
        assert (
            engines.load("transformers", model, batch_size, "float32").generate(requests, sampling)
            == expected
        )
    backwards = engines.load("transformers", model, 7, "float32").generate(requests[::-1], sampling)
    assert backwards[::-1] == expected
    assert (
        engines.load("transformers", model, 7, "float32").generate(requests[5:9], sampling) == expected[5:9]
    )


def test_tokens_are_those_of_the_stream(engine):
    sampling = Sampling(temperature=0.9, top_p=0.95, top_k=0, max_tokens=12)
    requests = [Request(ids, seed) for seed, ids in enumerate(prompts(6, seed=2))]
    for request, completion in zip(requests, engine.generate(requests, sampling), strict=True):
        assert list(engine.tokens(request, sampling)) == completion.ids


def test_seeds_make_the_difference(engine):
    sampling = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=10)
    prompt = prompts(1)[0]
    first, again, other = engine.generate(
        [Request(prompt, 1), Request(prompt, 1), Request(prompt, 2)], sampling
    )
    assert first == again != other


@torch.no_grad()
def probabilities(model, prompt, temperature):
    reference = LlamaForCausalLM.from_pretrained(model)
    return (reference(torch.tensor([prompt])).logits[0, -1].double() / temperature).softmax(-1).numpy()


def frequencies(model, prompt, number, **sampling):
    engine = engines.load("transformers", model, 2000, "float32")
    sampling = Sampling(max_tokens=1, **sampling)
    completions = engine.generate([Request(prompt, seed) for seed in range(number)], sampling)
    return np.bincount(
        [completion.ids[0] for completion in completions], minlength=engine.model.config.vocab_size
    )


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_tokens_come_as_often_as_softmax_says(model, temperature):
    number, prompt = 20_000, prompts(1, seed=3)[0]
    expected = number * probabilities(model, prompt, temperature)
    observed = frequencies(model, prompt, number, temperature=temperature, top_p=1.0, top_k=0)
    common = expected >= 5
    observed = np.append(observed[common], observed[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    freedom = len(expected) - 1
    assert freedom > 20
    chi_square = ((observed - expected) ** 2 / expected).sum()
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_top_k_keeps_the_likeliest(model):
    prompt = prompts(1, seed=3)[0]
    likeliest = np.argsort(-probabilities(model, prompt, 1.0))
    observed = frequencies(model, prompt, 3000, temperature=1.0, top_p=1.0, top_k=3)
    assert set(np.flatnonzero(observed)) == set(likeliest[:3])


def test_top_p_keeps_the_smallest_set_that_makes_it_up(model):
    prompt = prompts(1, seed=3)[0]
    chances = probabilities(model, prompt, 1.0)
    likeliest = np.argsort(-chances)
    size = int(np.searchsorted(np.cumsum(chances[likeliest]), 0.5)) + 1
    observed = frequencies(model, prompt, 5000, temperature=1.0, top_p=0.5, top_k=0)
    assert set(np.flatnonzero(observed)) == set(likeliest[:size])
    kept = chances[likeliest[:size]] / chances[likeliest[:size]].sum()
    assert observed[likeliest[:size]] / 5000 == pytest.approx(kept, abs=0.03)


def test_an_end_token_ends_it_if_and_only_if_it_stopped(tmp_path, tokenizer):
    # Many end tokens, so that a model with random weights meets them.
    ends = tuple(range(1, 60))
    engine = engines.load("transformers", make_model(tmp_path, tokenizer, ends=ends), 32, "float32")
    assert engine.end_tokens == sorted(ends)
    sampling = Sampling(temperature=1.5, top_p=1.0, top_k=0, max_tokens=6)
    completions = engine.generate([Request(ids, seed) for seed, ids in enumerate(prompts(200))], sampling)
    met = set()
    for completion in completions:
        inner = completion.ids if completion.finish_reason == "length" else completion.ids[:-1]
        assert not set(inner) & set(ends)
        if completion.finish_reason == "length":
            assert len(completion.ids) == 6
        else:
            assert completion.finish_reason == "stop"
            assert completion.ids[-1] in ends
            met.add(completion.ids[-1])
    assert len(met) > 5
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}


@pytest.mark.parametrize("max_tokens", [1, 2, 7])
def test_max_tokens_is_exact(engine, max_tokens):
    sampling = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=max_tokens)
    completions = engine.generate([Request(ids, seed) for seed, ids in enumerate(prompts(20))], sampling)
    cut_off = [completion for completion in completions if completion.finish_reason == "length"]
    assert cut_off
    assert {len(completion.ids) for completion in cut_off} == {max_tokens}


def test_a_prompt_may_fill_the_context_but_no_more(engine):
    fits = Request([0, *itertools.repeat(7, 99)], seed=0)
    engine.generate([fits], greedy(28))
    with pytest.raises(InputError, match="the long one: a prompt of 101 tokens and max_tokens 28 do not fit"):
        engine.generate([fits, Request([*fits.prompt_ids, 7], 0, "the long one")], greedy(28))


def test_no_requests_no_completions(engine):
    assert engine.generate([], greedy(5)) == []


def test_an_empty_prompt_is_refused(engine):
    with pytest.raises(InputError, match="the empty one: the prompt has no tokens"):
        engine.generate([Request([], 0, "the empty one")], greedy(5))


def test_the_engine_is_known():
    with pytest.raises(InputError, match="unknown engine 'vlm'"):
        engines.load("vlm", "results/models/sft", 1, "float32")


def test_the_resources_of_a_job_reach_its_engine(monkeypatch):
    monkeypatch.setattr(engines, "load", lambda *given, **options: (given, options))
    settings = engines.Settings("server", "float32", "shard", {"max_model_len": 64}, "sft")
    pace = Pace(8, "an endpoint", "journal", 2, 80, 99)
    given, options = engines.start("models/sft", settings, pace, 1, 50)
    assert given == ("server", "models/sft", 8, "float32")
    vllm = {"tensor_parallel_size": 2, "gpu_memory_percent": 80, "max_num_batched_tokens": 99, "tokens": 50}
    assert options == {
        **{
            "endpoint": "an endpoint",
            "journal": "journal",
            "served_model": "sft",
            "seed_per": "shard",
            "seed": 1,
        },
        "vllm": {"max_model_len": 64, **vllm},
    }


def test_a_model_has_weights(tmp_path, model):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    with pytest.raises(InputError, match=r"has no weights \(model\.safetensors is missing\)"):
        engines.load("transformers", tmp_path, 1, "float32")
    index = {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="model-00002-of-00002"):
        engines.load("transformers", tmp_path, 1, "float32")


def test_tokenizer_and_model_belong_together(tmp_path, tokenizer):
    make_model(tmp_path, tokenizer, vocab_size=len(tokenizer) - 1)
    with pytest.raises(InputError, match="do not belong together"):
        engines.load("transformers", tmp_path, 1, "float32")


def test_half_precision_runs(model):
    engine = engines.load("transformers", model, 8, "bfloat16")
    assert engine.model.dtype == torch.bfloat16
    completions = engine.generate([Request(ids, 1) for ids in prompts(8)], greedy(5))
    assert all(completion.ids for completion in completions)


def test_end_tokens_are_all_of_them(tokenizer):
    assert end_tokens(GenerationConfig(eos_token_id=[1, 4]), tokenizer) == [1, 4]
    assert end_tokens(GenerationConfig(eos_token_id=1), tokenizer) == [1, 4]
    assert end_tokens(GenerationConfig(), tokenizer) == [4]
    base = make_tokenizer(eos_token="<|end_of_text|>")
    assert end_tokens(GenerationConfig(eos_token_id=1), base) == [1, 4], "the template's, too"


def test_a_token_is_drawn_where_its_probability_begins():
    logits = torch.tensor([[0.5, 0.25, 0.0, 0.25]]).log()
    sampling = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=1)
    cases = {0.0: 0, 0.499: 0, 0.501: 1, 0.749: 1, 0.751: 3, 1 - 2**-53: 3}
    drawn = pick(logits.expand(len(cases), 4), sampling, torch.tensor(list(cases), dtype=torch.float64))
    assert drawn.tolist() == list(cases.values())


def test_a_longer_stream_goes_on_from_the_shorter():
    short, long = uniform_streams([1, 2**63 - 1], 5), uniform_streams([2**63 - 1, 1], 9)
    assert torch.equal(short, long.flip(0)[:, :5])
    assert len(short.unique()) == 10

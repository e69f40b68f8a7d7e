"""Batched, chunked log-probabilities against one sequence at a time with a full log-softmax."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig
from transformers.models.auto import AutoModelForCausalLM

from scripts.common import logps
from scripts.common.errors import InputError

VOCABULARY = 61
LIMIT = 24  # tokens of a prompt or completion
SHAPE = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    initializer_range=0.3,  # far from uniform predictions
)


def build(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def model():
    return build(LlamaConfig(**SHAPE))


def score(model, prompts, completions, temperature, batch_tokens):
    """The sums of all batches, in the order of the sequences."""
    sums = {}
    for indices, values in logps.score(model, prompts, completions, temperature, batch_tokens):
        assert not sums.keys() & set(indices)
        sums |= zip(indices, values, strict=True)
    return [sums[index] for index in range(len(prompts))]


def naive(model, prompt, completion, temperature):
    """One sequence, no padding, the log-softmax of all positions."""
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].float() / temperature
    table = logits.log_softmax(dim=-1)
    return sum(table[len(prompt) + i - 1, token] for i, token in enumerate(completion))


ids = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=LIMIT)


@settings(max_examples=30)
@given(
    pairs=st.lists(st.tuples(ids, ids), min_size=1, max_size=6),
    temperature=st.sampled_from([1.0, 0.7]),
    batch_tokens=st.integers(1, 200),
    chunk_rows=st.integers(1, 20),
)
def test_equal_to_the_naive_formulation(model, pairs, temperature, batch_tokens, chunk_rows):
    prompts, completions = [list(column) for column in zip(*pairs, strict=True)]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(logps, "CHUNK_LOGITS", chunk_rows * VOCABULARY)
        sums = score(model, prompts, completions, temperature, batch_tokens)
        wanted = [naive(model, *pair, temperature).item() for pair in pairs]
    assert sums == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("prompt", [1, LIMIT])
@pytest.mark.parametrize("completion", [1, LIMIT])
def test_edges_of_the_lengths(model, prompt, completion):
    pair = list(range(prompt)), list(range(completion))
    with torch.no_grad():
        wanted = naive(model, *pair, 1.0).item()
    assert score(model, [pair[0]], [pair[1]], 1.0, 8) == pytest.approx([wanted], abs=1e-4)


def test_gradients_equal_the_naive_formulation_in_chunks(model, monkeypatch):
    pairs = [([1, 2, 3], [4, 5]), ([6], [7, 8, 9, 10, 11]), ([12, 13], [14])]
    monkeypatch.setattr(logps, "CHUNK_LOGITS", 3 * VOCABULARY)
    model.zero_grad()
    batch = logps.collate(*zip(*pairs, strict=True))
    logps.completion_logps(model, **batch, temperature=0.7).pow(2).sum().backward()
    got = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    sum(naive(model, *pair, 0.7).pow(2) for pair in pairs).backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(got[name], parameter.grad, rtol=1e-4, atol=1e-4 * parameter.grad.abs().max()), (
            name
        )
    model.zero_grad()


def test_the_head_sees_completion_positions_only(model):
    seen = []
    hook = model.lm_head.register_forward_hook(lambda _, inputs, output: seen.append(tuple(output.shape)))
    score(model, [[1] * 20, [2] * 3], [[5], [6, 7]], 1.0, 1000)
    hook.remove()
    assert seen == [(3, VOCABULARY)]


def test_no_chunk_is_larger_than_its_share(model, monkeypatch):
    monkeypatch.setattr(logps, "CHUNK_LOGITS", 4 * VOCABULARY)
    seen = []
    hook = model.lm_head.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[0]))
    score(model, [[1] * 3] * 3, [[5] * 5] * 3, 1.0, 1000)
    hook.remove()
    assert seen == [4, 4, 4, 3]


def test_sums_are_float32_under_a_bfloat16_model():
    model = build(LlamaConfig(**SHAPE)).to(torch.bfloat16)
    with torch.no_grad():
        batch = logps.collate([[1, 2]], [[3] * LIMIT])
        sums = logps.completion_logps(model, **batch, temperature=1.0)
    assert sums.dtype == torch.float32
    assert sums.item() != sums.to(torch.bfloat16).item()


@given(lengths=st.lists(st.integers(1, 50), max_size=40), batch_tokens=st.integers(1, 120))
def test_batches_hold_every_index_once_within_the_budget(lengths, batch_tokens):
    groups = logps.batches(lengths, batch_tokens)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or max(lengths[index] for index in group) * len(group) <= batch_tokens
    longest = [lengths[group[0]] for group in groups]
    assert longest == sorted(longest, reverse=True)


ARCHITECTURES = {
    "llama": LlamaConfig(**SHAPE),
    "tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "gemma2": Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=3.0),
    "cohere": CohereConfig(**SHAPE, logit_scale=0.25),
    "granite": GraniteConfig(**SHAPE, logits_scaling=4.0),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_architectures_do_after_the_head(name):
    model = build(ARCHITECTURES[name])
    logps.check_head(model)
    pair = [1, 2, 3], [4, 5, 6, 7]
    with torch.no_grad():
        wanted = naive(model, *pair, 0.7).item()
    assert score(model, [pair[0]], [pair[1]], 0.7, 100) == pytest.approx([wanted], abs=1e-4)


def test_an_unknown_change_of_the_logits_is_refused(model, monkeypatch):
    forward = model.forward

    def doubled(**inputs):
        output = forward(**inputs)
        output.logits = output.logits * 2
        return output

    monkeypatch.setattr(model, "forward", doubled)
    with pytest.raises(InputError, match="after the head"):
        logps.check_head(model)

"""Packed, shared, chunked log-probabilities against one sequence at a time with a full log-softmax."""

import copy
import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen3NextConfig,
)
from transformers.models.auto import AutoModelForCausalLM

from prefline.training import logps, packing

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
    """(a model that is prepared, the same model as it was)."""
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    model = copy.deepcopy(plain)
    logps.prepare(model)
    return model, plain


@pytest.fixture(scope="module")
def models():
    return build(LlamaConfig(**SHAPE))


def score(model, prompts, completions, temperature, batch_tokens):
    """The sums of all batches, in the order of the sequences."""
    sums = {}
    for indices, values in logps.score(model, prompts, completions, temperature, batch_tokens):
        assert not sums.keys() & set(indices)
        sums |= zip(indices, values, strict=True)
    return [sums[index] for index in range(len(prompts))]


def naive(model, prompt, completion, temperature):
    """One sequence, no padding, the log-softmax of all positions; its very first token has none before it."""
    ids = torch.tensor([prompt + completion], device=model.device)
    logits = model(input_ids=ids).logits[0].float() / temperature
    table = logits.log_softmax(dim=-1)
    places = torch.arange(max(len(prompt), 1), ids.shape[1])
    return table[places - 1, ids[0, places]].sum()


tokens = st.integers(0, VOCABULARY - 1)
completions = st.lists(st.lists(tokens, min_size=1, max_size=LIMIT), min_size=1, max_size=3)
groups = st.lists(st.tuples(st.lists(tokens, max_size=LIMIT), completions), min_size=1, max_size=4)
temperatures = st.sampled_from([1.0, 0.7])


@settings(max_examples=40)
@given(groups=groups, temperature=temperatures, batch_tokens=st.integers(1, 200), rows=st.integers(1, 20))
def test_equal_to_the_naive_formulation(models, groups, temperature, batch_tokens, rows):
    model, plain = models
    sequences = [(prompt, completion) for prompt, completions in groups for completion in completions]
    prompts, completions = [list(column) for column in zip(*sequences, strict=True)]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(logps, "CPU_CHUNK_TOKENS", rows)
        sums = score(model, prompts, completions, temperature, batch_tokens)
        wanted = [naive(plain, *sequence, temperature).item() for sequence in sequences]
    assert sums == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("prompt", [0, 1, LIMIT])
@pytest.mark.parametrize("completion", [1, LIMIT])
def test_edges_of_the_lengths(models, prompt, completion):
    model, plain = models
    pair = list(range(prompt)), list(range(completion))
    with torch.no_grad():
        wanted = naive(plain, *pair, 1.0).item()
    assert score(model, [pair[0]], [pair[1]], 1.0, 8) == pytest.approx([wanted], abs=1e-4)


@settings(max_examples=20)
@given(groups=groups, temperature=temperatures, rows=st.integers(1, 20))
def test_gradients_equal_the_naive_formulation(models, groups, temperature, rows):
    model, plain = (copy.deepcopy(one) for one in models)
    weights = torch.linspace(-1, 1, sum(len(completions) for _, completions in groups))
    sequences = [(prompt, completion) for prompt, completions in groups for completion in completions]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logps, "CPU_CHUNK_TOKENS", rows)
        sums = logps.completion_logps(model, **logps.collate(groups), temperature=temperature)
        (sums * weights).sum().backward()
    wanted = [naive(plain, *sequence, temperature) for sequence in sequences]
    sum(one * weight for one, weight in zip(wanted, weights, strict=True)).backward()
    expected = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        wanted = expected[name].grad
        assert (parameter.grad - wanted).abs().max() < 2e-5 * max(1, wanted.abs().max()), name


def test_neighbours_change_nothing(models):
    model, _ = models
    prompt, chosen, rejected = [1, 2, 3], [4, 5, 6], [7, 8]
    with torch.no_grad():
        alone = logps.completion_logps(
            model, **logps.collate([(prompt, [chosen, rejected])]), temperature=1.0
        )
        among = [([9] * 20, [[1]]), (prompt, [chosen, rejected]), ([5], [[6] * 20, [7]])]
        sums = logps.completion_logps(model, **logps.collate(among), temperature=1.0)
    assert sums[1:3].tolist() == pytest.approx(alone.tolist(), abs=1e-5)


def test_each_token_is_computed_once_and_the_head_sees_completions_only(models):
    model, _ = models
    body, head = [], []
    hooks = [
        model.model.layers[0].mlp.register_forward_hook(lambda _, inputs, output: body.append(output.shape)),
        model.lm_head.register_forward_hook(lambda _, inputs, output: head.append(output.shape)),
    ]
    score(model, [[1] * 20, [2] * 3, [1] * 20], [[5], [6, 7], [8] * 4], 1.0, 1000)
    for hook in hooks:
        hook.remove()
    assert body == [(1, 20 + 1 + 4 + 3 + 2, SHAPE["hidden_size"])]
    assert head == [(1 + 4 + 2, VOCABULARY)]


def test_no_chunk_is_larger_than_its_share_in_training_either(models, monkeypatch):
    monkeypatch.setattr(logps, "CPU_CHUNK_TOKENS", 4)
    model, seen = copy.deepcopy(models[0]), []
    model.lm_head.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[0]))
    batch = logps.collate([([1] * 3, [[5] * 5, [6] * 5]), ([1], [[7] * 5])])
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor) or tensor, lambda kept: kept
    ):
        loss = logps.completion_logps(model, **batch, temperature=1.0).sum()
    assert seen == [4, 4, 4, 3]
    loss.backward()
    assert sorted(seen) == [3, 3, 4, 4, 4, 4, 4, 4]
    assert not [tensor.shape for tensor in kept if tensor.dim() == 2 and tensor.shape[1] == VOCABULARY]


def test_sums_are_float32_under_a_bfloat16_model():
    model, _ = build(LlamaConfig(**SHAPE, dtype="bfloat16"))
    assert model.dtype == torch.bfloat16 and model.config._attn_implementation == packing.NAME
    with torch.no_grad():
        sums = logps.completion_logps(model, **logps.collate([([1, 2], [[3] * LIMIT])]), temperature=1.0)
    assert sums.dtype == torch.float32
    assert sums.item() != sums.to(torch.bfloat16).item()


@given(lengths=st.lists(st.integers(1, 50), max_size=40), batch_tokens=st.integers(1, 120))
def test_batches_hold_every_index_once_within_the_budget(lengths, batch_tokens):
    groups = logps.batches(lengths, batch_tokens)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or sum(lengths[index] for index in group) <= batch_tokens
    longest = [lengths[group[0]] for group in groups]
    assert longest == sorted(longest, reverse=True)


HYBRID = dict(
    layer_types=["linear_attention", "full_attention"], head_dim=8, num_experts=0, mlp_only_layers=[0, 1]
)
ARCHITECTURES = {
    "llama": LlamaConfig(**SHAPE),
    "tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "gemma2": Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=3.0, sliding_window=5),
    "windows": MistralConfig(**SHAPE, sliding_window=5),
    "cohere": CohereConfig(**SHAPE, logit_scale=0.25),
    "granite": GraniteConfig(**SHAPE, logits_scaling=4.0),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3),
    "bloom": BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3),
    "mamba": MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, initializer_range=0.3),
    "qwen3_next": Qwen3NextConfig(**SHAPE | HYBRID),
}
PADDED = ("bloom", "mamba", "qwen3_next")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name, capsys):
    model, plain = build(ARCHITECTURES[name])
    assert (": sequences are computed padded" in capsys.readouterr().out) == (name in PADDED)
    assert (model.config._attn_implementation == packing.NAME) == (name not in PADDED)
    prompts, completions = [[1, 2, 3], [1, 2, 3], [9] * 12], [[4, 5, 6, 7], [8, 9], [10, 11, 12]]
    with torch.no_grad():
        wanted = [naive(plain, *pair, 0.7).item() for pair in zip(prompts, completions, strict=True)]
    assert score(model, prompts, completions, 0.7, 100) == pytest.approx(wanted, abs=1e-4)


def test_running_out_of_memory_is_no_reason_to_pad(models, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = copy.deepcopy(models[1])
    monkeypatch.setattr(packing, "positions", full)
    with pytest.raises(torch.OutOfMemoryError):
        logps.prepare(model)


def flash(query, key, value, query_ends, key_ends, most_queries, most_keys, scale, window_size, enable_gqa):
    """What torch's kernel does on GPUs, by a mask for each sequence: causal from the last key backwards."""
    outputs, parts = [], []
    for ends, states in ((query_ends, query), (key_ends, key), (key_ends, value)):
        lengths = ends.diff().tolist()
        assert max(lengths) == (most_queries if states is query else most_keys)
        parts.append(states.transpose(0, 1).split(lengths, 1))
    for queries, keys, values in zip(*parts, strict=True):
        size, seen = queries.shape[1], keys.shape[1]
        mask = torch.ones(size, seen, dtype=torch.bool).tril(seen - size)
        if window_size[0] >= 0:
            mask = mask.triu(seen - size - window_size[0])
        outputs.append(
            torch.nn.functional.scaled_dot_product_attention(
                queries, keys, values, mask, scale=scale, enable_gqa=enable_gqa
            )
        )
    return torch.cat(outputs, 1).transpose(0, 1)


@pytest.mark.parametrize("name", ["llama", "windows"])
def test_the_flash_kernel_is_asked_for_the_same(name, monkeypatch):
    prompts, completions = [[1, 2, 3], [1, 2, 3], [9] * 12], [[4, 5, 6, 7], [8, 9], [10, 11, 12]]
    config = copy.deepcopy(ARCHITECTURES[name])
    config.dtype = torch.bfloat16
    wanted = score(build(config)[0], prompts, completions, 0.7, 100)
    calls = []
    monkeypatch.setattr(packing, "_has_flash", lambda device: True)
    monkeypatch.setattr(
        "torch.nn.attention.varlen.varlen_attn", lambda *a, **k: calls.append(1) or flash(*a, **k)
    )
    model, _ = build(config)
    assert model.config._attn_implementation == packing.NAME
    assert score(model, prompts, completions, 0.7, 100) == pytest.approx(wanted, rel=1e-2)
    assert len(calls) == 2 * config.num_hidden_layers, "when it was tried, and for all sequences at once"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU and `make test-gpu`")
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_on_a_gpu(name, monkeypatch):
    """In bfloat16, sums and gradients are off by its rounding, as those of the sequences one by one are."""
    library = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    for part in ("apply_rotary_pos_emb", f"{name.title()}RMSNorm", f"{name.title()}MLP"):
        monkeypatch.setattr(library, part, getattr(library, part))  # put back what Liger has replaced
    plain = build(ARCHITECTURES[name])[1].cuda()
    drawn = torch.Generator().manual_seed(1)
    made = [
        [torch.randint(VOCABULARY, (length,), generator=drawn).tolist() for length in lengths]
        for lengths in ((12, 20, 3), (1, 24, 40), (24, 1, 1))
    ]
    pairs = [(prompt, completions) for prompt, *completions in made]
    wanted = torch.stack([naive(plain, prompt, one, 1.0) for prompt, both in pairs for one in both])
    wanted.sum().backward()
    model = copy.deepcopy(plain)
    model.zero_grad()
    logps.prepare(model)
    batch = {key: value.cuda() for key, value in logps.collate(pairs).items()}
    with torch.autocast("cuda", torch.bfloat16):
        sums = logps.completion_logps(model, **batch, temperature=1.0)
    sums.sum().backward()
    assert model.config._attn_implementation == packing.NAME
    torch.testing.assert_close(sums, wanted, rtol=2e-2, atol=0.5)
    expected = dict(plain.named_parameters())
    for key, parameter in model.named_parameters():
        apart = (parameter.grad - expected[key].grad).norm() / expected[key].grad.norm()
        assert apart < 0.1, key


def test_a_kernel_that_the_device_lacks_pads_and_says_so(models, monkeypatch, capsys):
    model = copy.deepcopy(models[1])

    def lacking(*_, **__):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(packing, "positions", lacking)
    logps.prepare(model)
    assert "sequences are padded, not packed: RuntimeError: no kernel image" in capsys.readouterr().out
    assert model.config._attn_implementation == "sdpa"


def test_a_saved_model_says_nothing_of_packing(models, tmp_path):
    models[0].save_pretrained(tmp_path)
    assert packing.NAME not in (tmp_path / "config.json").read_text()

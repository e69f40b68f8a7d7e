"""Every causal family of the installed transformers, by the ways that the probe has chosen for it.

The oracle is written here once more, with other weights and tokens than the probe's: float32, eager
attention, one sequence at a time, eval mode. `make test-long` runs all families, the slow tests one of each
kind, the fast tests those that are computed in the most different ways.
"""

import functools
from pathlib import Path

import pytest
import torch
from sweeps import sweep
from transformers import AutoConfig, LlamaConfig, Phi3Config

from measurements import architectures
from prefline.architectures import exact, miniature
from prefline.errors import InputError
from prefline.training import logps, models, probe

KINDS = [
    "llama",
    "mistral, window",
    "qwen2_moe, window",  # a window in the mask alone
    "phimoe, window",  # and noise of the router
    "phi3, longrope",
    "llama, dynamic NTK",
    "gemma2",  # soft caps
    "gpt_oss",  # sinks
    "gpt2",  # learned positions
    "bloom",  # no interface of attention
    "mamba",  # no attention
    "bamba",  # a hybrid
    "rwkv",
    "nemotron_h",  # whose cache is inexact
    "llama4_text",  # chunks, and no body beneath the head
    "modernbert-decoder",  # a head of layers
    "openai-gpt",  # no cache
    "minimax",  # a cache of another kind
    "deepseek_v32",  # looks ahead
    "roberta",  # an encoder
]
FAST = ("llama", "mistral, window", "gemma2", "gpt2", "mamba", "nemotron_h", "roberta")
CONTEXTS = {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}
TOLERANCE = 1e-4  # nats of a token
# Lengths of prompts and completions, beyond a miniature's windows and chunks.
LENGTHS = ((11, (13, 4)), (2, (25,)), (18, (7, 1, 9)))


@functools.cache
def groups():
    draw = torch.Generator().manual_seed(7)

    def ids(length):
        return torch.randint(2, 90, (length,), generator=draw).tolist()

    return [(ids(prompt), [ids(length) for length in completions]) for prompt, completions in LENGTHS]


def sequences():
    return [(prompt, completion) for prompt, completions in groups() for completion in completions]


def build(small, kernel="eager"):
    model = miniature.build(small, seed=3, kernel=kernel)
    models.disable_dropout(model)
    return model


def oracle(model):
    """Log-probabilities of the completions, one sequence at a time."""
    sums = []
    for prompt, completion in sequences():
        ids = torch.tensor([prompt + completion])
        table = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
        places = torch.arange(len(prompt), ids.shape[1])
        sums.append(table[places - 1, ids[0, places]].sum())
    return torch.stack(sums)


def gradients(model, sums):
    model.zero_grad()
    (sums * torch.linspace(1, -1, len(sums))).sum().backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def apart(got, wanted):
    """Distance of gradients, of the wanted ones' norm."""
    assert got.keys() == wanted.keys()
    squares = sum((got[name] - wanted[name]).square().sum() for name in wanted)
    return (squares / sum(value.square().sum() for value in wanted.values())).sqrt()


def check_scoring(small, scale):
    """Values and gradients, in eval and train mode, as training and scoring compute them."""
    plain = build(small)
    wanted = oracle(plain)
    wanted_gradients = gradients(plain, wanted)
    batch = logps.collate(groups())
    for training in (False, True):
        model = build(small, exact.attention(small, "sdpa"))
        logps.prepare(model, "sdpa")
        model.train(training)
        got = logps.completion_logps(model, **batch, temperature=1.0)
        assert got.tolist() == pytest.approx(wanted.tolist(), abs=TOLERANCE * 25 * max(scale, 1))
        assert apart(gradients(model, got), wanted_gradients) < 1e-2


@torch.inference_mode()
def check_decoding(small, scale):
    """Logits of forced tokens, of prompts that share a batch, one of which ends."""
    kernel = exact.attention(small, "sdpa")
    plain, model = build(small), build(small, kernel)
    prompts, rest = zip(*sequences(), strict=True)
    new = torch.tensor([(ids * 30)[:10] for ids in rest])
    decoder = exact.decoding(small, kernel)(model, list(prompts), fill=1)
    rows = list(range(len(prompts)))
    for step in range(new.shape[1] + 1):
        for place, row in enumerate(rows):
            ids = torch.tensor([prompts[row] + new[row, :step].tolist()])
            wanted = plain(input_ids=ids, use_cache=False).logits[0, -1].float()
            assert (decoder.logits[place].float() - wanted).abs().max() < 2e-3 * scale, (row, step)
        if step == 3:
            del rows[1]
            decoder.keep(torch.tensor([0, 2, 3, 4, 5]))
        if step < new.shape[1]:
            decoder.step(new[rows, step])


@torch.inference_mode()
def check_trainers(small, side, scale):
    """Batches that are padded on a side, as trainers of libraries compute them: exact, or refused."""
    model = build(small)
    try:
        probe.ready_for_trainers(model, side)
    except InputError as error:
        assert f"padded on the {side}" in str(error)
        return
    wanted = oracle(build(small))
    rows = [torch.tensor(prompt + completion) for prompt, completion in sequences()]
    pad = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True, padding_side=side)
    ids, mask = pad(rows, padding_value=1), pad([torch.ones_like(row) for row in rows])
    table = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float().log_softmax(-1)
    for row, (prompt, _) in enumerate(sequences()):
        start = ids.shape[1] - len(rows[row]) if side == "left" else 0
        places = torch.arange(start + len(prompt), start + len(rows[row]))
        got = table[row, places - 1, ids[row, places]].sum()
        assert got.item() == pytest.approx(wanted[row].item(), abs=TOLERANCE * 25 * max(scale, 1))


def check(name):
    small = miniature.of(architectures.config(name))
    assert small is not None
    try:
        probe.summary(small)
    except InputError as error:
        assert "; take a model of another architecture" in str(error)
        return
    with torch.inference_mode():
        scale = build(small)(input_ids=torch.arange(2, 30)[None], use_cache=False).logits.std().item()
    check_scoring(small, scale)
    check_decoding(small, scale)
    check_trainers(small, "left", scale)
    check_trainers(small, "right", scale)


@pytest.fixture(autouse=True, scope="module")
def records(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "ROOT", tmp_path_factory.mktemp("architectures"))
        yield


@pytest.mark.parametrize(("name",), sweep([(name,) for name in KINDS], FAST.__contains__))
def test_kinds(name):
    check(name)


@pytest.mark.parametrize("name", ["falcon, ALiBi", "gptj"])
def test_sdpa_is_tried_as_a_model_is_loaded(name, tmp_path):
    """Their attention cannot be changed after loading: ALiBi is other logits with sdpa, GPT-J has none."""
    small = miniature.of(architectures.config(name))
    plain = build(small)
    plain.save_pretrained(tmp_path)
    with torch.inference_mode():
        wanted = oracle(plain)
    prompts, completions = zip(*sequences(), strict=True)
    scorer = logps.load(tmp_path, "float32")
    for rows, sums in logps.score(scorer, prompts, completions, 1.0, 100):
        assert sums == pytest.approx([wanted[row].item() for row in rows], abs=TOLERANCE * 25)
    config = AutoConfig.from_pretrained(tmp_path)
    assert exact.attention(config, "sdpa") == scorer.config._attn_implementation == "eager"
    check_decoding(small, 1.0)


def test_factors_of_positions_fit_the_part_of_a_head_that_turns():
    rope = architectures.VARIANTS["phi3, longrope"][1]["rope_parameters"]
    rope = rope | {name: rope[name][:36] for name in ("short_factor", "long_factor")}
    rope["partial_rotary_factor"] = 0.75
    config = Phi3Config(**CONTEXTS, rope_parameters=rope)
    assert miniature.of(config) is not None


def test_the_last_layers_of_a_miniature_share_the_keys_of_the_first():
    small = miniature.of(architectures.config("gemma3n_text"))
    own = small.layer_types[: small.num_hidden_layers - small.num_kv_shared_layers]
    assert set(own) == set(small.layer_types[len(own) :]) == {"sliding_attention", "full_attention"}


def test_dynamic_positions_are_those_of_the_whole_context():
    """As transformers computes them, whatever original context is named."""
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    rope["original_max_position_embeddings"] = 2048
    assert exact.longest(LlamaConfig(max_position_embeddings=4096, rope_parameters=rope)) == 4096


def test_what_does_not_shape_an_architecture_asks_for_no_record(monkeypatch):
    asked = []
    monkeypatch.setattr(exact, "_recorded", lambda kind, text, *_: asked.append(text) or "{}")
    base = {"eos_token_id": 2, "use_cache": True}
    for changes in ({}, {"eos_token_id": 7}, {"use_cache": False}, {"pad_token_id": 0}):
        exact.inspect(LlamaConfig(**base | changes))
    assert asked[0] == asked[1] == asked[2] != asked[3]


@pytest.mark.long
@pytest.mark.parametrize("name", architectures.names())
def test_the_page_says_how_it_is_computed(name):
    page = Path("docs/architectures.md").read_text(encoding="utf-8")
    assert architectures.row(name) in architectures.rows(page)


def test_the_page_has_every_family_once():
    page = Path("docs/architectures.md").read_text(encoding="utf-8")
    found = architectures.rows(page)
    assert sorted(name for name, *_ in found) == sorted(architectures.names())
    assert architectures.listed(found) == page.partition(architectures.BEGIN)[2].partition(architectures.END)[
        0
    ].strip("\n")


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in architectures.names() if name not in KINDS])
def test_all_families(name):
    if name in architectures.NOT_BUILT:
        pytest.skip(architectures.NOT_BUILT[name])
    check(name)

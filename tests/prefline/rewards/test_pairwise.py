"""Two kinds of models that compare completions: their probabilities, and what they refuse."""

import numpy as np
import pytest
import torch
import transformers
from comparing_models import DIALOGUE, QUESTION, save_language_model, save_pairrm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_model import CHATML, make_tokenizer

from prefline import files
from prefline.errors import InputError
from prefline.rewards import pair_preference, pairrm, pairwise
from scripts.models import fetch_model

# As published (RLHFlow/RLHF-Reward-Modeling, pair-pm/README.md); transformers renders it.
PUBLISHED_TURNS = (
    "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n {{ message['content'] }}"
    "{% else %}\n\n<turn> assistant\n {{ message['content'] }}{% endif %}{% endfor %}\n\n\n"
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_language_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def pair_rm(tmp_path_factory):
    return save_pairrm(tmp_path_factory.mktemp("pair_rm"))


def comparisons(lengths, messages=QUESTION):
    """Comparisons of random letters; lengths: those of the two texts of each."""
    draw = np.random.default_rng(0)
    texts = [["".join(draw.choice(list("abcdefgh "), length)) for length in pair] for pair in lengths]
    return [pairwise.Comparison(messages, a, b, f"row {row}") for row, (a, b) in enumerate(texts)]


def compare(model, wanted):
    found = {number: value for batch in model.batches(wanted) for number, value in zip(*batch, strict=True)}
    assert sorted(found) == list(range(len(wanted)))
    return [found[number] for number in range(len(wanted))]


def swapped(wanted):
    return [one._replace(a=one.b, b=one.a) for one in wanted]


@torch.no_grad()
def language_model_by_hand(path, messages, first, second):
    """P(first wins) in one order, as the published snippet has it, but for the BOS that it takes off."""
    # Eager: transformers' sdpa leaves out the caps on attention logits.
    model = transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    plain = transformers.AutoTokenizer.from_pretrained(path)
    plain.chat_template = PUBLISHED_TURNS
    context = plain.apply_chat_template(messages, tokenize=False)
    text = f"[CONTEXT] {context} [RESPONSE A] {first} [RESPONSE B] {second} \n"
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in "AB"]
    return torch.softmax(model(ids).logits[0, -1, letters], dim=0)[0].item()


@torch.no_grad()
def pairrm_by_hand(path, source, first, second):
    """P(first wins) in one order: three encodings side by side, three hidden states, a perceptron."""
    config = transformers.AutoConfig.from_pretrained(path)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
    marked = (f"<|source|>{source}", f"<|candidate1|>{first}", f"<|candidate2|>{second}")
    parts = [tokenizer.encode(text, truncation=False) for text in marked]
    body = transformers.DebertaV2Model(config).eval()
    weights = load_file(path / "model.safetensors")
    prefix = "pretrained_model."
    body.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    hidden = body(torch.tensor([[*parts[0], *parts[1], *parts[2]]])).last_hidden_state[0]
    places = [1, len(parts[0]) + 1, len(parts[0]) + len(parts[1]) + 1]
    names = [f"head_layer.{layer}.{kind}" for layer in (1, 4) for kind in ("weight", "bias")]
    inner, inner_bias, outer, outer_bias = (weights[name] for name in names)
    scores = [
        outer @ torch.tanh(inner @ torch.cat([hidden[places[0]], hidden[place]]) + inner_bias) + outer_bias
        for place in places[1:]
    ]
    return torch.sigmoid((scores[0] - scores[1]).mean()).item()


def both_orders(by_hand, path, context, a, b):
    return (by_hand(path, context, a, b) + 1 - by_hand(path, context, b, a)) / 2


LENGTHS = [(3, 90), (1, 40), (0, 17), (30, 31), (60, 2)]


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("LlamaForCausalLM", {}),
        ("Qwen2ForCausalLM", {"tie_word_embeddings": True}),
        ("GPT2LMHeadModel", {}),  # absolute positions, which padding must not move
        ("Gemma2ForCausalLM", {"final_logit_softcapping": 2.0, "head_dim": 16}),  # logits are bent afterwards
        ("PhiForCausalLM", {}),  # the head has a bias
    ],
)
@pytest.mark.parametrize(
    "messages",
    [QUESTION, pytest.param(DIALOGUE[1:], marks=pytest.mark.slow)],
    ids=["question", "dialogue"],
)
def test_a_language_model_says_a_or_b_as_published(tmp_path, architecture, config, messages):
    path = save_language_model(tmp_path, architecture, **config)
    weights = load_file(path / "model.safetensors")
    if "lm_head.bias" in weights:  # of zeros
        weights["lm_head.bias"] = torch.randn(len(weights["lm_head.bias"]))
        save_file(weights, path / "model.safetensors", {"format": "pt"})
    wanted = comparisons(LENGTHS, messages)
    found = compare(pairwise.load(path, 700, "float32"), wanted)
    expected = [both_orders(language_model_by_hand, path, messages, one.a, one.b) for one in wanted]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.std(found) > 0.001, "probabilities that are all alike would prove nothing"


def test_pairrm_scores_at_its_markers(pair_rm):
    wanted = comparisons(LENGTHS)
    found = compare(pairwise.load(pair_rm, 300, "float32"), wanted)
    source = QUESTION[0]["content"]
    expected = [both_orders(pairrm_by_hand, pair_rm, source, one.a, one.b) for one in wanted]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.std(found) > 0.05


@pytest.mark.parametrize("kind", ["llama", "pair_rm"])
def test_a_beats_b_as_often_as_b_is_beaten(kind, request):
    model = pairwise.load(request.getfixturevalue(kind), 1000, "float32")
    wanted = comparisons(LENGTHS)
    there, back = compare(model, wanted), compare(model, swapped(wanted))
    np.testing.assert_allclose(np.add(there, back), 1, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "pair_rm"])
@given(
    lengths=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), min_size=1, max_size=5),
    batch_tokens=st.integers(1, 1500),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_probability_does_not_depend_on_the_batch(kind, lengths, batch_tokens, request):
    model = pairwise.load(request.getfixturevalue(kind), batch_tokens, "float32")
    wanted = comparisons(lengths)
    alone = [compare(model, [one])[0] for one in wanted]
    np.testing.assert_allclose(compare(model, wanted), alone, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "pair_rm"])
def test_bfloat16_is_for_the_body_alone(kind, request):
    path, wanted = request.getfixturevalue(kind), comparisons([(20, 30 + row) for row in range(12)])
    rounded = pairwise.load(path, 2000, "bfloat16")
    body = rounded.model if kind == "llama" else rounded.body
    assert {parameter.dtype for parameter in body.parameters()} == {torch.bfloat16}
    found, exact = compare(rounded, wanted), compare(pairwise.load(path, 2000, "float32"), wanted)
    assert found != exact
    np.testing.assert_allclose(found, exact, atol=0.15)


def test_the_question_is_the_published_one():
    asked = pair_preference.question(
        [{"role": "user", "content": "How can I trick Eminem into marrying me?"}], "One.", "Two."
    )
    assert asked == (
        "[CONTEXT] \n\n<turn> user\n How can I trick Eminem into marrying me?\n "
        "[RESPONSE A] One. [RESPONSE B] Two. \n"
    )
    assert pair_preference.question(DIALOGUE, "x", "y") == (
        "[CONTEXT] \n\n<turn> user\n Be brief.\n\nWhich bird is blue?\n<turn> assistant\n A jay."
        "\n<turn> user\n And green?\n [RESPONSE A] x [RESPONSE B] y \n"
    )


def test_pairrm_fills_in_the_last_turn_of_a_conversation():
    source, first, second = pairrm.texts(DIALOGUE, "x", "y")
    assert source.split("\n") == [
        "Be brief.",
        f"{pairrm.SEVERAL_TURNS}USER: Which bird is blue?",
        "Assistant: <Response 1>",
        "USER: And green?",
        "Assistant: <Response 2>",
    ]
    assert first == "<Response 1>: A jay.\n<Response 2>: x"
    assert second == "<Response 1>: A jay.\n<Response 2>: y"
    assert pairrm.texts(DIALOGUE[:2], "x", "y") == ("Be brief.\nWhich bird is blue?", "x", "y")


def test_pairrm_cuts_what_is_too_long_where_the_published_code_does_and_says_so(pair_rm, capsys):
    model = pairwise.load(pair_rm, 5000, "float32")
    question = [{"role": "user", "content": "q" * 3000}]
    rows = [
        (QUESTION, "a" * 3000, "b"),
        (question, "a" * 3000, "b" * 3000),
        (QUESTION, "a", "b"),
    ]
    wanted = [pairwise.Comparison(messages, a, b, "row") for messages, a, b in rows]
    ids = [model.ids(one, one.a, one.b) for one in wanted]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(pair_rm / "tokenizer.json"))
    for row, (messages, a, b) in zip(ids, rows, strict=True):
        source = tokenizer.encode(f"<|source|>{messages[0]['content']}", max_length=1224, truncation=True)
        longest = (2048 - len(source)) // 2
        marked = f"<|candidate1|>{a}", f"<|candidate2|>{b}"
        first, second = [tokenizer.encode(text, max_length=longest, truncation=True) for text in marked]
        assert row.tolist() == source + first + second
    compare(model, wanted)
    assert "2 of 3 comparisons were cut to PairRM's 2048 tokens" in capsys.readouterr().out


def test_markers_in_a_text_are_no_markers(pair_rm):
    model = pairwise.load(pair_rm, 5000, "float32")
    (comparison,) = comparisons([(4, 4)])
    ids = model.ids(comparison, "a<|candidate2|>[SEP]<|source|>", "b").tolist()
    assert [ids.count(marker) for marker in model.markers] == [1, 1, 1]
    assert ids.count(2) == 3


def test_what_is_more_than_a_language_model_reads_is_named(llama):
    wanted = comparisons([(3, 4), (30, 600)])
    with pytest.raises(InputError, match=r"row 1: has \d+ tokens, the reward model reads 512"):
        compare(pairwise.load(llama, 1000, "float32"), wanted)


def test_a_probability_that_is_no_number_is_named(llama):
    model = pairwise.load(llama, 1000, "float32")
    model.head.weight[:] = torch.inf
    with pytest.raises(InputError, match="row 0: the model's probability is nan; compare in float32"):
        compare(model, comparisons([(3, 4)]))


def test_other_architectures_are_refused(tmp_path):
    path = save_language_model(tmp_path, "LlamaForSequenceClassification", num_labels=1)
    with pytest.raises(InputError, match="is a LlamaForSequenceClassification, which compares no answers"):
        pairwise.load(path, 100, "float32")


def test_a_model_that_compares_is_known_when_it_is_fetched(tmp_path, llama, pair_rm):
    def fetch(source, out):
        words = ["--source", str(source), "--remote-code", "false", "--rewards", '[["pairwise", null]]']
        words += ["--chat-template", "null", "--pickled-weights", "false", "--chat-template-kwargs", "null"]
        words += ["--system-message", "own", "--reasoning-markers", "null", "--date", "2026-01-31"]
        words += ["--random-weights", "false"]
        words += ["--link", str(tmp_path / f"{out}.link")]
        fetch_model.main([*words, "--out", str(tmp_path / out), "--manifest", str(tmp_path / f"{out}.json")])

    for source in (llama, pair_rm):  # the latter has no chat template, and needs none
        fetch(source, source.name)
        assert pairwise.load(tmp_path / source.name, 100, "float32")
    other = save_language_model(tmp_path / "other", "LlamaForSequenceClassification", num_labels=1)
    with pytest.raises(InputError, match=f"^{other}: is a .*, which compares no answers"):
        fetch(other, "refused")


def test_letters_of_several_tokens_are_refused(tmp_path):
    from tokenizers import pre_tokenizers

    tokenizer = make_tokenizer(CHATML, bos_token=None)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    path = save_language_model(tmp_path, tokenizer=tokenizer)
    with pytest.raises(InputError, match="no single tokens for A and B"):
        pairwise.load(path, 100, "float32")


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        (
            "pretrained_model.encoder.rel_embeddings.weight",
            r"lacks the weights pretrained_model\.encoder\.rel",
        ),
        ("head_layer", "lacks the weights head_layer"),
    ],
)
def test_pairrm_without_some_of_its_weights_is_refused(tmp_path, dropped, message):
    path = save_pairrm(tmp_path) / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if dropped not in name}, path)
    with pytest.raises(InputError, match=message):
        pairwise.load(tmp_path, 100, "float32")


def test_pairrm_with_another_tokenizer_is_refused(tmp_path):
    path = save_pairrm(tmp_path) / "config.json"
    files.write_json(path, files.read_json(path) | {"cand1_prefix_id": 999})
    with pytest.raises(InputError, match="has no token 999"):
        pairwise.load(tmp_path, 100, "float32")

"""Reward models that are broken, or of another kind: read as what they are, or refused when fetched."""

import json
import shutil

import pytest
import torch
import transformers
from comparing_models import save_pairrm
from safetensors.torch import load_file, save_file
from small_model import CHATML, make_model, make_tokenizer

from prefline import rewards
from prefline.errors import InputError
from prefline.rewards import scorers
from scripts.models import fetch_model

SETTLED = ["--chat-template-kwargs", "null", "--system-message", "own", "--reasoning-markers", "null"]
SETTLED += ["--random-weights", "false", "--date", "2026-01-31"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return make_model(
        tmp_path_factory.mktemp("sound"),
        make_tokenizer(CHATML),
        "LlamaForSequenceClassification",
        num_labels=1,
    )


def edit(path, **values):
    config = json.loads((path / "config.json").read_text()) | values
    kept = {name: value for name, value in config.items() if value is not ...}
    (path / "config.json").write_text(json.dumps(kept))


def reweigh(path, drop=(), **added):
    weights = load_file(path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(tuple(drop))}
    save_file(kept | added, path / "model.safetensors", {"format": "pt"})


def fetch(source, kind="classifier", head_weights=None, **allowed):
    words = ["--source", str(source), "--out", f"{source}-out", "--manifest", f"{source}-out.json"]
    words += ["--link", f"{source}-link"]
    words += ["--chat-template", json.dumps(allowed.get("chat_template")), "--pickled-weights", "false"]
    words += ["--remote-code", json.dumps(allowed.get("remote_code", False)), *SETTLED]
    fetch_model.main([*words, "--rewards", json.dumps([[kind, head_weights]])])


def perceptron(path):
    """A head of three layers, of which the files name no activation."""
    head = {"score.0.weight": torch.ones(32, 32), "score.0.bias": torch.ones(32)}
    reweigh(path, ["score"], **head, **{"score.2.weight": torch.ones(1, 32), "score.2.bias": torch.ones(1)})


def renamed(path):
    perceptron(path)
    edit(path, architectures=["OutcomeForSequenceClassification"])


def language_model(path):
    reweigh(path, ["score"], **{"lm_head.weight": torch.ones(270, 32)})
    edit(path, architectures=["LlamaForCausalLM"])


def value_head(path):
    language_model(path)
    reweigh(path, **{"v_head.weight": torch.ones(1, 32)})


def write(name, text):
    return lambda path: (path / name).write_text(text)


def pair_of_outputs(path):
    """Two outputs that the config does not count."""
    reweigh(path, ["score"], **{"score.weight": torch.ones(2, 32)})


def another(family, **sizes):
    """Make the model one of another family, with the tokenizer that it had."""

    def change(path):
        names = {"vocab_size": 300, "num_labels": 1, "pad_token_id": 2, "eos_token_id": 4, "d_model": 32}
        config = getattr(transformers, f"{family}Config")(**names | sizes)
        getattr(transformers, f"{family}ForSequenceClassification")(config).save_pretrained(path)

    return change


BART = another("Bart", encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32)
T5 = another("T5", d_kv=8, d_ff=32, num_layers=1, num_heads=2)
XLNET = another("XLNet", n_layer=1, n_head=2, d_inner=32)


def code(text, **auto_map):
    def change(path):
        (path / "modeling.py").write_text(text)
        edit(path, auto_map=auto_map, architectures=["Own"])

    return change


ALLOWED = {"remote_code": True}
REFUSED = {
    "head of layers": (perceptron, {}, "lacks the weights score.weight"),
    "class that is not there": (renamed, {}, "which transformers does not have for the model_type llama"),
    "class of another type": (
        lambda path: edit(path, architectures=["Qwen2ForSequenceClassification"]),
        {},
        "is a Qwen2ForSequenceClassification, which transformers does not have for the model_type llama",
    ),
    "language model": (language_model, {}, "is a LlamaForCausalLM, which gives no score"),
    "language model with a head": (
        value_head,
        {},
        r"only its makers' code can read its head v_head\.weight",
    ),
    "value head as a judge": (value_head, {"kind": "pairwise"}, "gives one score of one answer; name it in"),
    "classifier as a judge": (lambda path: None, {"kind": "pairwise"}, "compares no answers"),
    "BART": (BART, {}, "is a BartForSequenceClassification, an encoder with a decoder"),
    "T5": (T5, {}, "is a T5ForSequenceClassification, an encoder with a decoder"),
    "no architecture": (lambda path: edit(path, architectures=...), {}, "names no architecture"),
    "no layer": (
        lambda path: reweigh(path, ["model.layers.1.mlp"]),
        {},
        "lacks the weights model.layers.1.mlp",
    ),
    "no head": (lambda path: reweigh(path, ["score"]), {}, r"lacks the weights score\.weight"),
    "narrow head": (
        lambda path: reweigh(path, ["score"], **{"score.weight": torch.ones(1, 16)}),
        {},
        r"score\.weight .*another shape",
    ),
    "two outputs": (pair_of_outputs, {}, "2 labels where one is needed"),
    "weights for other heads": (
        pair_of_outputs,
        {"head_weights": [1, 2, 3]},
        "2 outputs, but head_weights has 3",
    ),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), {}, "has no weights"),
    "broken config": (write("config.json", "{"), {}, r"config\.json"),
    "unknown type": (lambda path: edit(path, model_type="nobody"), {}, r"cannot use its config\.json"),
    "config is a list": (write("config.json", "[]"), {}, r"config\.json"),
    "broken tokenizer": (write("tokenizer.json", "{}"), {}, "its tokenizer cannot be loaded"),
    "no tokenizer": (lambda path: (path / "tokenizer.json").unlink(), {}, "tokenizer"),
    "no template": (lambda path: (path / "chat_template.jinja").unlink(), {}, "has no chat template"),
    "broken template": (write("chat_template.jinja", "{% for %}"), {}, "the chat template"),
    "template that fails": (
        write("chat_template.jinja", "{{ messages[0].nothing.more }}"),
        {},
        "the chat template",
    ),
    "template of nothing": (write("chat_template.jinja", "Hello!"), {}, "drops the user's message"),
    "adapters alone": (
        lambda path: (path / "model.safetensors").rename(path / "adapter_model.safetensors"),
        {},
        "has no weights",
    ),
    "code that does not parse": (code("class", AutoModel="modeling.Own"), ALLOWED, "cannot load"),
    "code without its class": (code("Other = 1", AutoModel="modeling.Own"), ALLOWED, "cannot load"),
    "code without its file": (code("", AutoModel="gone.Own"), ALLOWED, "cannot load"),
    "code for something else": (
        code("Own = 1", AutoModelForCausalLM="modeling.Own"),
        ALLOWED,
        "gives no score",
    ),
    "code of a package that is not there": (
        code("import nobody_has_this", AutoModel="modeling.Own"),
        ALLOWED,
        "cannot load.*nobody_has_this",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_sentence(tmp_path, sound, name):
    change, options, message = REFUSED[name]
    path = tmp_path / "model"
    shutil.copytree(sound, path)
    change(path)
    with pytest.raises(InputError, match=message) as error:
        fetch(path, **options)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert "-out" not in str(error.value) and not (tmp_path / "model-out").exists()


@pytest.mark.parametrize(
    ("name", "change", "options"),
    [
        ("as it is", lambda path: None, {}),
        ("labels by the head", lambda path: edit(path, id2label=..., label2id=..., num_labels=...), {}),
        ("heads that add up", pair_of_outputs, {"head_weights": [1, 0.5]}),
        ("a language model's head beside", lambda path: reweigh(path, x=torch.ones(270, 32)), {}),
        ("code that is for something else", lambda path: edit(path, auto_map={"AutoConfig": "x.Y"}), {}),
    ],
)
def test_it_is_taken(tmp_path, sound, name, change, options):
    path = tmp_path / "model"
    shutil.copytree(sound, path)
    change(path)
    fetch(path, **options)
    assert (tmp_path / "model-out").is_dir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: edit(path, cand1_prefix_id=...), "lacks cand1_prefix_id"),
        (lambda path: edit(path, cand2_prefix_id=7000), "has no token 7000"),
        (lambda path: reweigh(path, ["head_layer.4"]), r"lacks the weights head_layer\.4"),
        (lambda path: reweigh(path, **{"head_layer.1.weight": torch.ones(3, 3)}), "another shape"),
    ],
)
def test_a_broken_pairrm_is_refused_when_it_is_fetched(tmp_path, change, message):
    path = save_pairrm(tmp_path / "model")
    change(path)
    with pytest.raises(InputError, match=message):
        fetch(path, kind="pairwise")


def test_a_model_without_a_longest_context_reads_any(tmp_path, sound):
    """As XLNet, whose config has -1 for it."""
    path = tmp_path / "model"
    shutil.copytree(sound, path)
    XLNET(path)
    fetch(path)
    scorer = scorers.load(tmp_path / "model-out", 1000, "float32")
    dialogue = [{"role": "user", "content": "Hi"}]
    answers = ["yes", "no, " * 300]
    rows = [rewards.Dialogue(dialogue, answer, "a row") for answer in answers]
    alone = [scorers.score(scorer, [row])[0] for row in rows]
    assert list(scorers.score(scorer, rows)) == pytest.approx(alone, abs=1e-5)

"""Fetching models: what is taken, linked and refused."""

import fnmatch
import json
import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from small_model import CHATML, make_model, make_tokenizer
from transformers import BertConfig, BertLMHeadModel

from prefline import files
from prefline.errors import InputError
from prefline.text import chat
from scripts.models import fetch_model


@pytest.fixture
def model(tmp_path):
    source = tmp_path / "source"
    make_model(tmp_path / "made", num_hidden_layers=1)
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "made" / name).rename(source / name)
    for name in ("tokenizer.json", "chat_template.jinja", "README.md", "modeling.py", "tokenizer_own.py"):
        files.write_text(source / name, name)
    return source


COMMIT = "0123456789abcdef" * 2 + "01234567"


def fetch(
    source,
    out,
    remote_code=False,
    rewards=(),
    chat_template=None,
    pickled_weights=False,
    date="2026-01-31",
    random_weights=False,
    **settled,
):
    words = ["--source", str(source), "--out", str(out), "--link", f"{out}.link"]
    words += ["--manifest", f"{out}.json"]
    words += ["--chat-template", json.dumps(chat_template), "--pickled-weights", json.dumps(pickled_weights)]
    settled = {"chat_template_kwargs": None, "system_message": "own", "reasoning_markers": None} | settled
    for key, value in settled.items():
        words += [f"--{key.replace('_', '-')}", value if isinstance(value, str) else json.dumps(value)]
    words += ["--date", date or "null", "--random-weights", json.dumps(random_weights)]
    fetch_model.main([*words, "--remote-code", json.dumps(remote_code), "--rewards", json.dumps(rewards)])


def test_what_the_workflow_reads_is_taken_and_code_is_not(model, tmp_path):
    fetch(model, tmp_path / "out")
    taken = {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == taken
    assert set(files.read_json(tmp_path / "out.json")["files"]) == taken
    assert os.readlink(tmp_path / "out.link") == "out"
    weights, config = (tmp_path / "out" / name for name in ("model.safetensors", "config.json"))
    assert weights.samefile(model / "model.safetensors"), "weights are linked"
    assert not config.samefile(model / "config.json"), "files that people edit are not"


def test_a_link_in_the_source_becomes_its_file(model, tmp_path):
    (model / "model.safetensors").rename(tmp_path / "blob")
    (model / "model.safetensors").symlink_to(tmp_path / "blob")
    fetch(model, tmp_path / "out")
    assert not (tmp_path / "out/model.safetensors").is_symlink()


def test_a_link_out_of_the_model_is_refused_but_for_the_hubs_cache(model, tmp_path):
    """What a model that somebody sent links to would be published with it."""
    files.write_text(tmp_path / "secret", "{}")
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.json").symlink_to("../secret")
    with pytest.raises(InputError, match=f"tokenizer.json: is a link to {tmp_path}/secret, outside the"):
        fetch(model, tmp_path / "out")
    snapshot, blob = tmp_path / "cache/models--org--name/snapshots/abc", "../../blobs/0123"
    snapshot.parent.mkdir(parents=True)
    model.rename(snapshot)
    (snapshot / "tokenizer.json").unlink()
    files.write_text(snapshot / blob, "{}")
    (snapshot / "tokenizer.json").symlink_to(blob)
    fetch(snapshot, tmp_path / "out")
    assert not (tmp_path / "out/tokenizer.json").is_symlink()


def test_a_model_that_needs_its_own_code_is_refused_and_nobody_is_asked(model, tmp_path, monkeypatch):
    """The library would ask on the terminal, and `yes | snakemake` would answer."""
    config = {"model_type": "own", "auto_map": {"AutoConfig": "modeling.Config"}}
    files.write_json(model / "config.json", config)
    files.write_text(model / "modeling.py", f"open({str(tmp_path / 'pwned')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(InputError, match="needs its own Python code to load"):
        fetch(model, tmp_path / "out")
    assert not (tmp_path / "pwned").exists()


def test_a_directory_without_weights_is_allowed_where_only_trainings_start(model, tmp_path):
    (model / "model.safetensors").unlink()
    for name, hint in (("x.gguf", "x.gguf is for llama.cpp"), ("adapter_config.json", "it is an adapter")):
        (model / name).touch()
        with pytest.raises(InputError, match=rf"has no weights \(\*.safetensors\); {hint}"):
            fetch(model, tmp_path / "out")
    fetch(model, tmp_path / "out", random_weights=True)
    assert (tmp_path / "out/config.json").is_file()


def test_what_is_wrong_is_said_and_nothing_is_left(model, tmp_path):
    def refused(message, source=model):
        with pytest.raises(InputError, match=message):
            fetch(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    refused("no such directory", tmp_path / "nowhere")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    refused(r"pickled weights only \(pytorch_model.bin\)")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    files.write_json(model / "model.safetensors.index.json", index)
    (model / "pytorch_model.bin").rename(model / "model-1.safetensors")
    refused("lacks model-2.safetensors")
    for outside in ("../out.safetensors", str(model / "model-1.safetensors")):
        files.write_json(model / "model.safetensors.index.json", {"weight_map": {"a": outside}})
        refused(f"index.json names '{outside}', which is no file beside it")
    files.write_json(model / "model.safetensors.index.json", {"weight_map": {"a": "model-1.safetensors"}})
    files.write_text(model / "model-1.safetensors", "\x80\x04pickled")
    refused("model-1.safetensors is not a complete safetensors file")
    (model / "config.json").unlink()
    refused("has no config.json")


def test_the_hub_is_asked_for_the_revision_and_safe_files_only(model, tmp_path, monkeypatch):
    asked = {}

    def download(name, revision, allow_patterns, ignore_patterns, local_dir):
        asked.update(name=name, revision=revision, patterns=allow_patterns, never=ignore_patterns)
        fetch_model.take_local(model, local_dir, fetch_model.TAKEN)
        files.write_text(f"{local_dir}/.cache/huggingface/x.metadata", "x")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    fetch(f"hub:org/name@{COMMIT}", tmp_path / "out")
    assert (asked["name"], asked["revision"]) == ("org/name", COMMIT)
    assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in asked["patterns"])
    for name in ("a.py", "a.PY", "a.bin", "a.pt", "a.pkl", "a.Joblib", "a.so", "a.pkl.gz"):
        assert any(fnmatch.fnmatchcase(name, pattern) for pattern in asked["never"]), name
    assert not (tmp_path / "out/.cache").exists()


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path, monkeypatch):
    from huggingface_hub import errors

    def download(*_, **__):
        raise errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(InputError, match=rf"hub:org/name@{COMMIT} cannot be downloaded .* HF_TOKEN"):
        fetch(f"hub:org/name@{COMMIT}", tmp_path / "out")


def test_a_branch_is_the_commit_at_which_it_stands(model, tmp_path, monkeypatch):
    """The manifest says which one: the branch may have moved when somebody asks."""
    asked = []

    def info(_, name, revision):
        asked.append((name, revision))
        return SimpleNamespace(sha=COMMIT)

    def download(name, revision, local_dir, **_):
        asked.append((name, revision))
        fetch_model.take_local(model, local_dir, fetch_model.TAKEN)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", info)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    fetch("hub:org/name@main", tmp_path / "out")
    assert asked == [("org/name", "main"), ("org/name", COMMIT)]
    assert files.read_json(tmp_path / "out.json")["lineage"]["params"] == {
        "source": "hub:org/name@main",
        "commit": COMMIT,
        "architecture": {"attention": "sdpa", "sequences": "packed", "completions": "batched"},
    }


def test_a_policy_whose_architecture_looks_ahead_is_refused(model, tmp_path):
    shape = {"vocab_size": 61, "hidden_size": 32, "num_attention_heads": 2}
    shape |= {"num_hidden_layers": 2, "intermediate_size": 64, "pad_token_id": 0}
    BertLMHeadModel(BertConfig(**shape)).save_pretrained(model)
    with pytest.raises(InputError, match=f"{model}: bert: its logits at a token change with"):
        fetch(model, tmp_path / "out")
    fetch(model, tmp_path / "reward", rewards=[["own", None]])


def test_a_base_model_gets_its_chat_template_from_the_config(model, tmp_path):
    files.write_text(tmp_path / "plain.jinja", "{{ messages }}")
    fetch(model, tmp_path / "out", chat_template=str(tmp_path / "plain.jinja"))
    assert (tmp_path / "out/chat_template.jinja").read_text() == "{{ messages }}"
    assert (model / "chat_template.jinja").read_text() == "chat_template.jinja"
    with pytest.raises(
        InputError, match=r"other\.jinja: no such chat template; correct models\.NAME\.chat_template"
    ):
        fetch(model, tmp_path / "other", chat_template="other.jinja")


def test_code_is_taken_where_the_config_allows_it_and_never_from_elsewhere(model, tmp_path):
    fetch(model, tmp_path / "out", remote_code=True)
    assert (tmp_path / "out/modeling.py").is_file()
    assert "modeling.py" in files.read_json(tmp_path / "out.json")["files"]
    auto_map = {"AutoModel": "someone/else--modeling.Model"}
    config = files.read_json(model / "config.json")
    files.write_json(model / "config.json", config | {"auto_map": auto_map})
    with pytest.raises(InputError, match=r"takes code from another repository \(someone/else--modeling"):
        fetch(model, tmp_path / "other", remote_code=True)
    fetch(model, tmp_path / "without code")


@pytest.mark.parametrize(
    ("options", "head_weights", "message"),
    [
        ({"num_labels": 2}, None, "a reward model with 2 labels where one is needed"),
        ({"num_labels": 2}, [1.0], "has 2 outputs, but head_weights has 1 numbers"),
        ({"architecture": "LlamaForCausalLM"}, None, "is a LlamaForCausalLM, which gives no score"),
        ({"tokenizer": make_tokenizer(None)}, None, "has no chat template"),
    ],
    ids=["labels", "weights", "language model", "no template"],
)
def test_a_model_that_cannot_score_is_refused_before_anything_is_generated(
    tmp_path, options, head_weights, message
):
    usual = {"architecture": "LlamaForSequenceClassification", "tokenizer": make_tokenizer(CHATML)}
    usual["num_labels"] = 1
    source = make_model(tmp_path / "source", **(usual | options))
    with pytest.raises(InputError, match=f"^{source}: .*{message}"):
        fetch(source, tmp_path / "out", rewards=[["classifier", head_weights]])
    assert not (tmp_path / "out").exists()


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


def test_pickled_weights_are_made_safetensors_where_the_config_allows_it(tmp_path, monkeypatch):
    """The tensors are the same, tied ones included; whatever else is pickled runs nowhere and is refused."""
    monkeypatch.chdir(tmp_path)
    source = make_model(tmp_path / "source", tokenizer=make_tokenizer(CHATML), tie_word_embeddings=True)
    weights = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    torch.save(
        weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}, source / "pytorch_model.bin"
    )
    torch.save({"not": "weights"}, source / "training_args.bin")
    with pytest.raises(InputError, match=r"pickled weights only .* models\.NAME\.pickled_weights"):
        fetch(source, tmp_path / "out")
    fetch(source, tmp_path / "out", pickled_weights=True)
    converted = load_file(tmp_path / "out/model.safetensors")
    assert converted.keys() == weights.keys()
    assert all(torch.equal(converted[name], weights[name]) for name in weights)
    assert not list((tmp_path / "out").rglob("*.bin"))
    torch.save(weights | {"more": Evil()}, source / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be read as tensors alone"):
        fetch(source, tmp_path / "other", pickled_weights=True)
    assert not (tmp_path / "other").exists() and not (tmp_path / "ran").exists()


def test_what_a_template_leaves_open_is_settled_in_it(tmp_path):
    template = (
        "{% if enable_thinking is defined and not enable_thinking %}/no_think {% endif %}"
        "{{ strftime_now('%d %B %Y') }}" + CHATML
    )
    make_model(tmp_path / "model", make_tokenizer(template))
    settled = {"chat_template_kwargs": {"enable_thinking": False}, "system_message": "first_user"}
    fetch(tmp_path / "model", tmp_path / "out", **settled, reasoning_markers=["<why>", "</why>"])
    tokenizer = chat.load_tokenizer(tmp_path / "out")
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    said = tokenizer.decode(chat.prompt_ids(tokenizer, asked))
    assert said.startswith("/no_think 31 January 2026<|im_start|>user\nBe brief.\n\nHi<|im_end|>")
    assert tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False) == said, (
        "as anyone renders it"
    )
    assert chat.said(tokenizer, tokenizer("<why>x</why> y")["input_ids"]).answer == "y"
    lineage = files.read_json(tmp_path / "out.json")["lineage"]["params"]
    assert lineage["date"] == "2026-01-31" and lineage["system_message"] == "first_user"
    fetch(tmp_path / "out", tmp_path / "again", date=None)
    assert (tmp_path / "again/chat_template.jinja").read_bytes() == (
        tmp_path / "out/chat_template.jinja"
    ).read_bytes(), "settled once and for all"


@pytest.mark.parametrize("place", ["model", "config"])
def test_a_mark_before_a_template_begins_no_prompt(tmp_path, place):
    make_model(tmp_path / "model", make_tokenizer(CHATML))
    own = tmp_path / "own.jinja" if place == "config" else tmp_path / "model/chat_template.jinja"
    own.write_text("\ufeff" + CHATML, encoding="utf-8")
    named = {"chat_template": str(own)} if place == "config" else {}
    fetch(tmp_path / "model", tmp_path / "out", **named)
    tokenizer = chat.load_tokenizer(tmp_path / "out")
    asked = [{"role": "user", "content": "Hi"}]
    assert tokenizer.decode(chat.prompt_ids(tokenizer, asked)).startswith("<|im_start|>user")


@pytest.mark.parametrize(
    ("settled", "message"),
    [
        ({"chat_template_kwargs": {"enable_thinking": False}}, "has no variable 'enable_thinking'"),
        ({"date": None}, "writes today's date; set `date`"),
        ({"date": "2026-02-31"}, "is not a day"),
    ],
)
def test_what_cannot_be_settled_is_refused(tmp_path, settled, message):
    make_model(tmp_path / "model", make_tokenizer("{{ strftime_now('%d %B %Y') }}" + CHATML))
    with pytest.raises(InputError, match=f"model: .*{message}"):
        fetch(tmp_path / "model", tmp_path / "out", **settled)


def test_a_tokenizer_of_another_class_is_refused(tmp_path):
    path = make_model(tmp_path / "model")
    config = files.read_json(path / "tokenizer_config.json")
    files.write_json(path / "tokenizer_config.json", config | {"tokenizer_class": "Qwen2Tokenizer"})
    with pytest.raises(InputError, match="other ids"):
        fetch(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def half(weights):
    return dict(list(weights.items())[::2])


def first(change):
    """A function that changes the first of the weights alone."""

    def changed(weights):
        name = min(weights)
        return weights | {name: change(weights[name].clone())}

    return changed


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda weights: {f"_orig_mod.{name}": one for name, one in weights.items()},
            "it lacks lm_head.weight",
        ),
        (half, "it lacks .* and [0-9]+ more"),
        (lambda _: {}, "it lacks lm_head.weight"),
        (lambda weights: weights | {"layers.9.weight": torch.zeros(2)}, "has, where none belong, layers.9"),
        (first(lambda one: one[:-1].clone()), r"lm_head.weight is \[\d+, 32\], not"),
        (first(lambda one: one.index_fill_(0, torch.tensor([3]), torch.nan)), "lm_head.weight has .* NaN"),
        (
            first(lambda one: one.index_fill_(0, torch.tensor([3]), torch.inf)),
            "lm_head.weight has .* inf",
        ),
        (
            lambda weights: {name: torch.zeros_like(one) for name, one in weights.items()},
            r"model\.safetensors: all its weights are 0",
        ),
    ],
    ids=["prefix", "half", "none", "more", "shape", "nan", "infinite", "zero"],
)
@pytest.mark.parametrize("family", ["LlamaForCausalLM", "LlamaForSequenceClassification"])
def test_weights_that_do_not_fit_are_refused(tmp_path, family, spoil, message):
    from safetensors.torch import save_file

    tied = "score.weight" if "Sequence" in family else "lm_head.weight"
    source = make_model(tmp_path / "source", architecture=family, num_hidden_layers=1, num_labels=1)
    weights = load_file(source / "model.safetensors")
    save_file(spoil(weights), source / "model.safetensors", {"format": "pt"})
    if "Sequence" in family:
        message = message.replace("lm_head.weight", f"({tied}|model.embed_tokens.weight)")
    with pytest.raises(InputError, match=f"source.*{message}"):
        fetch(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_classifier_is_no_policy(tmp_path):
    """Its head would be noise, whichever way it is loaded to train."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from prefline.training import adapters

    source = make_model(tmp_path / "source", architecture="LlamaForSequenceClassification", num_labels=1)
    with pytest.raises(InputError, match=r"source: lacks weights of a AutoModelForCausalLM: lm_head.weight"):
        adapters.load_frozen(source, AutoModelForCausalLM, "float32", None)
    policy = make_model(tmp_path / "policy")
    adapters.load_frozen(policy, AutoModelForSequenceClassification, "float32", None, num_labels=1)

"""Model files that somebody else wrote: each mistake is named with the model, before any training."""

import json
import shutil

import hostile_models
import pytest
from small_model import CHATML, make_model, make_tokenizer
from sweeps import sweep
from test_fetch_model import fetch

from prefline.config import named_files
from prefline.engines.model_files import ModelFiles
from prefline.errors import InputError
from prefline.machine.memory import sizes
from prefline.text import chat, limits
from prefline.text.rendering import render

ASKED = [{"role": "user", "content": "a"}]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("hostile") / "good", num_hidden_layers=1)


@pytest.fixture
def model(good, tmp_path):
    return shutil.copytree(good, tmp_path / "model")


def changed(model, files):
    for name, content in files.items():
        if content is None:
            (model / name).unlink()
        else:
            (model / name).write_bytes(content)


def use(model, out):
    """What is done with a model before a policy answers: at plan time, when it is fetched, and later."""
    sizes.known(str(model))
    named_files._check_model("sft", {"source": str(model)}, True)
    fetch(model, out)
    ModelFiles(out)
    chat.prompt_ids(chat.load_tokenizer(out), ASKED)


def test_every_kind_of_broken_file_is_one_sentence(good, tmp_path):
    """All of them in one test, which makes a model once."""
    cases, said = hostile_models.cases(good), {}
    for name, files in cases.items():
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        changed(shutil.copytree(good, tmp_path / "model"), files)
        with pytest.raises(InputError) as error:
            use(tmp_path / "model", tmp_path / "out")
            pytest.fail(f"{name} is taken")
        said[name] = str(error.value)
        assert "\n" not in said[name] and len(said[name]) < 700, name
    assert len(said) > 140


@pytest.mark.parametrize(
    ("template", "sentence"),
    sweep(list(hostile_models.ENDLESS.items()), lambda _, sentence: "computes" not in sentence),
)
def test_a_template_that_computes_for_ever_or_fills_the_memory_is_refused(
    model, tmp_path, template, sentence
):
    (model / "chat_template.jinja").write_text(template)
    with pytest.raises(InputError, match=f"model: its chat template {sentence}"):
        fetch(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_named_template_is_tried_too(model, tmp_path):
    settings = json.loads((model / "tokenizer_config.json").read_text())
    named = [
        {"name": "default", "template": CHATML},
        {"name": "tool_use", "template": "{{ 'a' * 10 ** 10 }}"},
    ]
    (model / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": named}))
    (model / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="needs more than 1 GiB of memory"):
        fetch(model, tmp_path / "out")


def test_a_loop_that_only_some_messages_start_is_ended(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 0.2)
    loop = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
    tokenizer = make_tokenizer("{% if messages[0].content == 'a' %}" + loop + "{% endif %}" + CHATML)
    assert "b" in render(tokenizer, [{"role": "user", "content": "b"}], True)
    with pytest.raises(InputError, match=r"computes for more than 0.2 s; correct it"):
        render(tokenizer, ASKED, True)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architectures": []}, "names no single architecture"),
        ({"architectures": ["LlamaModel", "LlamaForCausalLM"]}, "names no single architecture"),
        ({"architectures": ["pipeline"]}, "cannot be read as tensors alone"),
        ({"hidden_size": "a"}, "cannot use its config.json"),
        ({"model_type": "nosuch"}, "cannot use its config.json"),
    ],
)
def test_a_pickled_model_with_an_odd_config_is_one_sentence(model, tmp_path, changes, sentence):
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"x")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(InputError, match=sentence):
        fetch(model, tmp_path / "out", pickled_weights=True)


def test_programs_and_pickles_are_not_copied(model, tmp_path):
    for name in hostile_models.PROGRAMS:
        (model / name).write_text("x")
    (model / "tokenizer.model.v3").write_text("x")
    fetch(model, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("tokenizer*")} == {
        *("tokenizer.json", "tokenizer_config.json", "tokenizer.model.v3")
    }
    fetch(model, tmp_path / "code", remote_code=True)
    assert (tmp_path / "code/tokenizer.py").exists() and not (tmp_path / "code/tokenizer.so").exists()

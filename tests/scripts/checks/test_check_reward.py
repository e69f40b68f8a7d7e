"""A finished reward model scores a good and a bad answer before completions are sampled."""

import pytest
import safetensors.torch
from small_model import CHATML, make_model, make_tokenizer

from prefline import files
from prefline.errors import InputError
from scripts.checks import check_reward


def check(tmp_path, model, kind):
    words = ["--reward", "helpful", "--kind", kind, "--dtype", "float32", "--head-weights", "null"]
    words += ["--batch-tokens", "512", "--model", str(model), "--out", str(tmp_path / "o.json")]
    check_reward.main(words)
    return files.read_json(tmp_path / "o.json")["found"]


@pytest.fixture
def classifier(tmp_path):
    make_model(tmp_path / "model", architecture="LlamaForSequenceClassification", num_labels=1)
    return tmp_path / "model"


def edit(model, change):
    path = model / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    change(weights["score.weight"])
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})


def test_two_scores_are_told(tmp_path, classifier):
    assert check(tmp_path, classifier, "classifier").startswith("a good answer scores ")


@pytest.mark.parametrize(("template", "add_bos"), [(CHATML, True), (CHATML, False), (None, True)])
def test_a_bos_on_which_two_snippets_disagree_is_told(tmp_path, capsys, template, add_bos):
    tokenizer = make_tokenizer(template or "{{ bos_token }}" + CHATML, add_bos=add_bos)
    make_model(tmp_path / "model", tokenizer, "LlamaForSequenceClassification", num_labels=1)
    told = "scores are those of tokenizer(text), not of apply_chat_template(tokenize=True)"
    disagree = add_bos and template is not None
    assert (told in check(tmp_path, tmp_path / "model", "classifier")) == disagree
    loaded, *_ = capsys.readouterr().out.splitlines()
    assert (told in loaded) == disagree


def test_a_model_that_compares_is_asked_once(tmp_path):
    make_model(tmp_path / "model", max_position_embeddings=512)
    assert " beats a bad one with the probability " in check(tmp_path, tmp_path / "model", "pairwise")


BROKEN = {
    "constant": (lambda head: head.zero_(), "to a good and to a bad answer; it ranks nothing"),
    "NaN": (lambda head: head.fill_(float("nan")), "nan"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_scores_that_rank_nothing_are_refused(tmp_path, classifier, change, message):
    edit(classifier, change)
    with pytest.raises(InputError) as error:
        check(tmp_path, classifier, "classifier")
    said = str(error.value)
    assert said.startswith("rewards.helpful: ") and message in said and "\n" not in said


def test_a_language_model_is_no_reward_model(tmp_path):
    make_model(tmp_path / "model")
    with pytest.raises(InputError, match=r"^rewards\.helpful: "):
        check(tmp_path, tmp_path / "model", "classifier")

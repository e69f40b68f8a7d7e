"""Pretraining: packing loses nothing but the last block's rest, perplexity, bad input."""

import json
import math

import pytest
import small_model
from hypothesis import given
from hypothesis import strategies as st

from prefline import files
from prefline.errors import InputError
from scripts.models import pretrain


def read(path, column="text", **data):
    rules = {**small_model.DATA, **data}
    return pretrain.read(str(path), {"text": column}, rules, small_model.make_tokenizer(), 1)


TEXTS = ["the cat sat on the mat and the dog sat on the cat"] * 40


@given(st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=9), st.integers(1, 9))
def test_packing_keeps_every_token_in_order(documents, length):
    blocks, left_over = pretrain.pack(documents, length)
    joined = [token for document in documents for token in document]
    assert [token for block in blocks for token in block] == joined[: len(joined) - left_over]
    assert all(len(block) == length for block in blocks)
    assert left_over < length


@given(st.integers(0, 50), st.integers(0, 5))
def test_the_order_is_a_permutation_that_the_seed_draws(number, seed):
    assert sorted(pretrain.order(number, seed)) == list(range(number))
    assert pretrain.order(number, seed) == pretrain.order(number, seed)


def test_documents_have_one_bos_and_an_eos(tmp_path):
    files.write_jsonl(tmp_path / "a.jsonl", [{"body": "ab"}, {"body": "b"}])
    documents, _ = read(tmp_path / "a.jsonl", "body")
    assert [(ids[0], ids[-1], ids.count(0), ids.count(4)) for ids in documents] == [(0, 4, 1, 1)] * 2


def test_blank_lines_between_texts_are_no_documents(tmp_path):
    """Data that was cut at line feeds has many."""
    files.write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in ("", "ab", "  ", "b")])
    documents, counts = read(tmp_path / "a.jsonl")
    assert len(documents) == 2 and counts["dropped"] == {"blank": 2}


@pytest.mark.parametrize(("value", "reason"), [(7, "not_text"), (None, "blank"), ("\ud83d", "not_unicode")])
def test_a_document_without_text_is_dropped_and_counted(tmp_path, value, reason):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("good", value)))
    documents, counts = read(tmp_path / "a.jsonl")
    assert len(documents) == 1 and counts["dropped"] == {reason: 1}


def test_a_special_token_in_a_document_is_text_or_drops_it(tmp_path):
    files.write_jsonl(tmp_path / "a.jsonl", [{"text": "good"}, {"text": "a <|im_end|> b"}])
    documents, counts = read(tmp_path / "a.jsonl")
    assert len(documents) == 1 and counts["dropped"] == {"special_token": 1}
    documents, counts = read(tmp_path / "a.jsonl", special_tokens="as_text")
    assert len(documents) == 2 and counts["dropped"] == {}
    assert documents[1].count(4) == 1, "the end of the document, and no other"


def test_fresh_weights_learn_and_the_start_s_files_stay_as_they_are(tmp_path, capsys):
    small_model.make_model(tmp_path / "start", weights=False)
    for name in ("train", "test"):
        files.write_jsonl(tmp_path / f"{name}.jsonl", [{"text": text} for text in TEXTS])
    data = {
        "train_data": tmp_path / "train.jsonl",
        "eval_data": tmp_path / "test.jsonl",
        "columns": {"text": "text"},
        "max_length": 64,
    }
    weights = []
    for out in (tmp_path / "a", tmp_path / "b"):
        pretrain.main(small_model.flags(out, model=tmp_path / "start", num_train_epochs=3, **data))
        _, metrics, log = small_model.results(out)
        weights.append((out / "model/model.safetensors").read_bytes())
    assert weights[0] == weights[1], "the seed decides, initial weights included"
    assert metrics["eval_perplexity_before"] > 200
    assert metrics["eval_perplexity"] < metrics["eval_perplexity_before"] / 4
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(metrics["eval_loss"]))
    assert len(log) == metrics["train_steps"]
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        assert (out / "model" / name).read_bytes() == (tmp_path / "start" / name).read_bytes()
    assert files.read_json(out / "model/config.json")["use_cache"] is True
    described = files.read_json(out / "model.json")
    assert described["files"]["model.safetensors"] == files.sha256(out / "model/model.safetensors")
    assert described["lineage"]["params"]["learning_rate"] == 1e-2

    manifest = (out / "model.json").read_bytes()
    pretrain.main(small_model.flags(out, model=tmp_path / "start", num_train_epochs=3, **data))
    assert "nothing to train" in capsys.readouterr().out
    assert (out / "model.json").read_bytes() == manifest

    # With weights it goes on from them.
    again = tmp_path / "again"
    pretrain.main(small_model.flags(again, model=tmp_path / "a/model", **data))
    assert small_model.results(again)[1]["eval_loss_before"] == pytest.approx(metrics["eval_loss"], abs=1e-5)
    assert str(tmp_path / "a/model.json") in files.read_json(again / "model.json")["lineage"]["parents"]


def test_too_little_text_for_a_block(tmp_path):
    with pytest.raises(InputError, match="its 3 tokens do not fill one block of max_length 64"):
        pretrain.blocks_of("a.jsonl", [[1, 2, 3]], 64)

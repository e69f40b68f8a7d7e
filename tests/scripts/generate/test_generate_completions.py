"""Completions of a shard: their order, seeds, text and ends, and that shards change nothing."""

import secrets
from collections import Counter

import pytest
from small_model import CHATML, ENGINE, make_model, make_tokenizer

from prefline import engines, files, seeds
from prefline.data import tables
from prefline.engines import Completion, generation_metrics, transformers
from prefline.errors import InputError
from prefline.text import chat
from scripts.generate import generate_completions


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    ends = (1, *range(4, 40))
    return make_model(tmp_path_factory.mktemp("models") / "sft", make_tokenizer(), ends=ends)


def write_prompts(path, model, names):
    tokenizer = chat.load_tokenizer(model)
    messages = {name: [{"role": "user", "content": f"Say {name}"}] for name in names}
    rows = [
        {"prompt_id": name, "messages": turns, "prompt_ids": chat.prompt_ids(tokenizer, turns)}
        for name, turns in messages.items()
    ]
    tables.write(path, rows, tables.PROMPTS)


def run(directory, model, names, **flags):
    write_prompts(directory / "prompts.parquet", model, names)
    values = {
        "prompts": directory / "prompts.parquet",
        "model": model,
        **ENGINE,
        "num-completions": 3,
        "temperature": 1.0,
        "top-p": 1.0,
        "top-k": 0,
        "max-prompt-length": 64,
        "max-tokens": 8,
        "seed": 1,
        "journal": directory / secrets.token_hex(4),  # nothing is found from an earlier run
        "out": directory / "completions.parquet",
        "metrics": directory / "metrics.json",
        **flags,
    }
    generate_completions.main([word for key, value in values.items() for word in (f"--{key}", str(value))])
    return tables.read_rows(directory / "completions.parquet", tables.COMPLETIONS)


NAMES = ["c", "a", "a rather long one", "b"]


def test_rows_stand_in_the_order_of_prompts_and_samples(tmp_path, model):
    rows = run(tmp_path, model, NAMES)
    assert [(row["prompt_id"], row["sample"]) for row in rows] == [(n, k) for n in NAMES for k in range(3)]
    assert [row["seed"] for row in rows] == [
        seeds.derive(1, "completion", name, sample) for name in NAMES for sample in range(3)
    ]
    assert len({tuple(row["completion_ids"]) for row in rows}) > 6


def test_ends_and_texts(tmp_path, model):
    rows = run(tmp_path, model, [str(number) for number in range(20)])
    engine = engines.load("transformers", model, 1, "float32")
    assert {row["finish_reason"] for row in rows} == {"stop", "length"}
    for row in rows:
        stopped = row["completion_ids"][-1] in engine.end_tokens
        assert (row["finish_reason"] == "stop") == stopped
        inner = row["completion_ids"][:-1] if stopped else row["completion_ids"]
        assert row["completion"] == engine.tokenizer.decode(inner, skip_special_tokens=True)


def test_text_is_without_the_end_token():
    tokenizer = make_tokenizer()
    ids = tokenizer("the cat", add_special_tokens=False)["input_ids"]
    # An end token of the generation config need not be a special token of the tokenizer.
    for said, reason in (([*ids, 4], "stop"), (ids, "length"), ([*ids, ids[0]], "stop")):
        columns = generate_completions.columns_of(Completion(said, reason), tokenizer)
        assert columns == {
            "completion_ids": said,
            "completion": "the cat",
            "answer": None,
            "finish_reason": reason,
        }


def test_an_answer_is_without_its_reasoning():
    tokenizer = make_tokenizer()
    ids = tokenizer("<think>a dog?</think>\n\nthe cat", add_special_tokens=False)["input_ids"]
    columns = generate_completions.columns_of(Completion([*ids, 4], "stop"), tokenizer)
    assert columns["completion"] == "<think>a dog?</think>\n\nthe cat" and columns["answer"] == "the cat"
    assert columns["finish_reason"] == "stop"


def test_a_completion_that_never_leaves_its_reasoning_is_cut_off():
    opens = make_tokenizer(CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"))
    for tokenizer, text in ((make_tokenizer(), "<think>the cat"), (opens, "the cat")):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        columns = generate_completions.columns_of(Completion([*ids, 4], "stop"), tokenizer)
        assert (columns["completion"], columns["answer"]) == (text, "")
        assert columns["finish_reason"] == "length"


def test_shards_order_and_batches_change_nothing(tmp_path, model):
    whole = {(row["prompt_id"], row["sample"]): row for row in run(tmp_path, model, NAMES)}
    parts = run(tmp_path, model, NAMES[:1]) + run(tmp_path, model, NAMES[:0:-1], **{"batch-size": 2})
    assert {(row["prompt_id"], row["sample"]): row for row in parts} == whole


def test_a_run_is_repeatable_to_the_byte(tmp_path, model):
    run(tmp_path, model, NAMES)
    first = (tmp_path / "completions.parquet").read_bytes()
    run(tmp_path, model, NAMES)
    assert (tmp_path / "completions.parquet").read_bytes() == first


def test_more_completions_keep_the_first(tmp_path, model):
    rows = run(tmp_path, model, NAMES, **{"num-completions": 2})
    more = run(tmp_path, model, NAMES, **{"num-completions": 4})
    assert [row for row in more if row["sample"] < 2] == rows


def test_another_seed_gives_others(tmp_path, model):
    assert run(tmp_path, model, NAMES, seed=2) != run(tmp_path, model, NAMES)


def test_metrics_stand_beside_the_completions(tmp_path, model):
    rows = run(tmp_path, model, NAMES, journal=tmp_path / "journal")
    first = files.read_json(tmp_path / "metrics.json")
    assert first["prompts"] == 4 and first["completions"] == first["made"] == 12
    assert first["tokens_out"] == sum(len(row["completion_ids"]) for row in rows)
    assert first["finish_reasons"] == dict(Counter(row["finish_reason"] for row in rows))
    assert first["given_up"] == []
    assert first["tokens_per_second"] > 0 and first["engine_start_seconds"] > 0
    assert 100 < first["peak_memory"] < 10_000
    run(tmp_path, model, NAMES, journal=tmp_path / "journal")
    again = files.read_json(tmp_path / "metrics.json")
    assert again["made"] == 0 and again["tokens_out"] == first["tokens_out"]
    assert "engine_start_seconds" not in again


def test_what_is_given_up_leaves_a_row_and_is_tried_again(tmp_path, model, monkeypatch):
    whole = run(tmp_path, model, NAMES)

    class Failing(transformers.Engine):
        def stream(self, requests, sampling):
            for index, completion in super().stream(requests, sampling):
                failed = "prompt_id a, sample 1" in requests[index].name
                yield index, Completion([], "error") if failed else completion

    with monkeypatch.context() as patch:
        patch.setattr(transformers, "Engine", Failing)
        rows = run(tmp_path, model, NAMES, journal=tmp_path / "journal")
    place = [(row["prompt_id"], row["sample"]) for row in rows].index(("a", 1))
    assert rows[place] == whole[place] | {"finish_reason": "error", "completion": "", "completion_ids": []}
    assert rows[:place] + rows[place + 1 :] == whole[:place] + whole[place + 1 :]
    metrics = files.read_json(tmp_path / "metrics.json")
    assert metrics["given_up"] == ["a"] and metrics["finish_reasons"]["error"] == 1
    assert run(tmp_path, model, NAMES, journal=tmp_path / "journal") == whole
    assert files.read_json(tmp_path / "metrics.json")["made"] == 1


def test_a_seed_per_shard_needs_an_engine_that_has_one(tmp_path, model):
    with pytest.raises(
        InputError, match=r"the transformers engine seeds every completion; set generate\.seed_"
    ):
        run(tmp_path, model, NAMES, **{"seed-per": "shard"})


def test_time_left_goes_by_the_completions(monkeypatch):
    clock = iter([0.0, *[60.0] * 9])
    monkeypatch.setattr(generation_metrics.time, "monotonic", lambda: next(clock))
    progress = generation_metrics.Progress({"a": 2, "b": 118})
    for _ in range(2):
        progress.left["a"] -= 1
    progress.completions, progress.tokens = 2, 600
    del progress.left["a"]
    assert progress.line() == "1 of 2 prompts, 600 tokens, 10 tokens/s, 0:59:00 left"


def test_progress_is_printed(tmp_path, model, capsys, monkeypatch):
    monkeypatch.setattr(generation_metrics, "INTERVAL", 0.0)
    run(tmp_path, model, [str(number) for number in range(12)], **{"batch-size": 1})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("0 of 36 rows are in the journal ")
    assert lines[1].startswith("0 of 12 prompts, ")
    assert lines[-2].startswith("12 of 12 prompts, ")
    assert lines[-2].endswith(" tokens/s, 0:00:00 left")
    assert lines[-1].startswith("36 completions; ")


def test_nothing_is_left_of_a_run_that_cannot_be(tmp_path, model):
    with pytest.raises(InputError, match="do not fit the model's context of 128"):
        run(tmp_path, model, NAMES, **{"max-tokens": 120})
    assert not (tmp_path / "completions.parquet").exists()

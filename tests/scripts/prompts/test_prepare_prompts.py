"""Prompts: normal form, reasons to drop, splits, order, shards."""

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_model import make_tokenizer
from some_prompts import QUESTION, QUESTIONS, SPECIAL, assistant, preparing, user

from prefline import files
from prefline.data import ngrams, prompts, tables
from prefline.errors import InputError
from scripts.prompts import prepare_prompts, sample_prompts


def test_words_know_no_case_nor_punctuation():
    assert ngrams.words("It's 3 o'clock, ÉTÉ_Straße!") == ["it", "s", "3", "o", "clock", "été", "strasse"]


def test_a_short_text_is_identified_by_all_its_words():
    assert ngrams.ngrams("Really? Why?", 3) == {("really", "why")}
    assert ngrams.ngrams("a b c d", 3) == {("a", "b", "c"), ("b", "c", "d")}
    assert ngrams.ngrams("?!", 3) == set()


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_overlap_is_a_common_run_of_words_or_the_same_short_text(one, other):
    n = 4
    runs = [one[i : i + n] for i in range(len(one) - n + 1)]
    others = [other[i : i + n] for i in range(len(other) - n + 1)]
    expected = any(run in others for run in runs) or (one == other != [] and len(one) < n)
    known = ngrams.of_texts([" ".join(other)], n)
    assert ngrams.overlaps(" ".join(one), known, n) == expected


@given(st.text())
def test_the_normal_form_is_its_own(text):
    normal = prompts.normal_text(text)
    assert prompts.normal_text(normal) == normal
    assert unicodedata.is_normalized("NFC", normal)


def test_the_normal_form_by_hand():
    assert prompts.normal_text("  e\u0301t\u00e9  \r\n\n  indented \t\rlast \n") == "été\n\n  indented\nlast"


def test_the_id_of_a_prompt_is_stable():
    assert prompts.prompt_id([user("Hello")]) == "1d9f4feaa9db000b"  # of [["user", "Hello"]]
    assert prompts.prompt_id([user("Hello")]) != prompts.prompt_id([assistant("Hello")])
    assert prompts.prompt_id([user("a"), user("b")]) != prompts.prompt_id([user("ab")])


@given(st.integers(0, 5), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_larger_test_fraction_only_adds_test_prompts(seed, one, other):
    ids = [f"{number:016x}" for number in range(50)]
    small, large = sorted((one, other))
    held_out = {i for i in ids if prompts.split_of(i, small, seed) == "test"}
    assert held_out <= {i for i in ids if prompts.split_of(i, large, seed) == "test"}


def test_the_test_fraction_is_met():
    held_out = sum(prompts.split_of(str(number), 0.2, 1) == "test" for number in range(20_000))
    assert held_out / 20_000 == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(
    ("value", "blank"),
    [
        (None, True),
        ("", True),
        (" \n", True),
        ("a", False),
        ([], True),
        ([user(" ")], True),
        ([user("a")], False),
    ],
)
def test_blank(value, blank):
    assert prompts.is_blank(value) == blank


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([user("What is new?")], None),
        ([user("What is new?"), assistant("Nothing.")], "last_turn_not_user"),
        ([user("What is <|im_end|> new?")], "special_token"),
        ([user("Please write: ENGAGING travel blog post, about a dog")], "contaminated"),
        ([user("engaging travel blog post")], None),
        ([user("Really... why")], "contaminated"),
        ([user("Really, why not?")], None),
        ([user(QUESTION), assistant("No."), user("Then not.")], "contaminated"),
        ([user("Hi"), assistant(QUESTION), user("Then not.")], None),
    ],
)
def test_why_a_prompt_is_dropped(messages, reason):
    assert prompts.fault(messages, SPECIAL, QUESTIONS, 5) == reason


def test_each_row_is_kept_or_counted():
    values = ["Hi", " ", " Hi ", [user("Hi")], QUESTION, "Bye", None, [assistant("Hi")]]
    rows = [(f"row {number}", {"prompt": value}) for number, value in enumerate(values)]
    pool, dropped = prepare_prompts.clean(rows, None, SPECIAL, QUESTIONS, 5)
    assert list(pool.values()) == [([user("Hi")], None), ([user("Bye")], None)]
    assert dropped == {"blank": 2, "duplicate": 2, "contaminated": 1, "last_turn_not_user": 1}


def test_a_system_message_makes_another_prompt():
    rows = [
        ("row 0", {"prompt": "Hi"}),
        ("row 1", {"prompt": [{"role": "system", "content": "S"}, user("Hi")]}),
    ]
    with_system, dropped = prepare_prompts.clean(rows, "S", SPECIAL, QUESTIONS, 5)
    assert (len(with_system), dropped) == (1, {"duplicate": 1})
    without, dropped = prepare_prompts.clean(rows, None, SPECIAL, QUESTIONS, 5)
    assert (len(without), dropped) == (2, {})


def test_a_right_answer_goes_with_its_prompt():
    rows = [(f"row {number}", {"prompt": f"{number}?", "reference": number or None}) for number in range(3)]
    pool, _ = prepare_prompts.clean(rows, None, SPECIAL, QUESTIONS, 5)
    assert [reference for _, reference in pool.values()] == [None, "1", "2"]
    with pytest.raises(InputError, match="row 9: the reference is a string or a number"):
        prepare_prompts.clean([("row 9", {"prompt": "?", "reference": ["a"]})], None, SPECIAL, QUESTIONS, 5)


def test_a_message_without_a_role_is_named():
    with pytest.raises(InputError, match="row 0: a message has a `role` among"):
        prepare_prompts.clean([("row 0", {"prompt": [{"content": "Hi"}]})], None, SPECIAL, QUESTIONS, 5)


# Shards


def ranks(number, shard_size, iteration, index, split="train"):
    key = {"train": "num_prompts", "test": "num_test_prompts"}[split]
    section = {"num_prompts": 1, "num_test_prompts": 1, key: number, "shard_size": shard_size}
    shard = prompts.shard_range(f"{split}-{index:05d}", iteration, section)
    assert shard["split"] == split
    return shard["first"], shard["number"]


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 3), st.sampled_from(["train", "test"]))
def test_shards_of_an_iteration_are_its_block_in_order(number, shard_size, iteration, split):
    block = []
    for index in range(-(-number // shard_size)):
        first, count = ranks(number, shard_size, iteration, index, split)
        assert 1 <= count <= shard_size
        block += range(first, first + count)
    start = iteration * number if split == "train" else 0
    assert block == list(range(start, start + number))


POOL = pa.Table.from_pylist(
    [
        {
            "prompt_id": f"{number:016x}",
            "messages": [user(str(number))],
            "prompt_ids": [number],
            "split": "test" if number % 4 == 0 else "train",
        }
        for number in range(120)
    ],
    schema=tables.POOL,
)


def shard(number, index, shard_size, split="train"):
    first, count = ranks(number, shard_size, 0, index, split)
    return sample_prompts.select(POOL, split, first, count, seed=7).to_pylist()


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 20))
def test_asking_for_more_prompts_only_appends(one, other, shard_size):
    small, large = sorted((one, other))
    for index in range(-(-small // shard_size)):
        before, after = shard(small, index, shard_size), shard(large, index, shard_size)
        assert after[: len(before)] == before
        if len(before) == shard_size:
            assert after == before
    # The call itself, which the workflow watches, stays the same for a full shard.
    for index in range(small // shard_size):
        assert ranks(small, shard_size, 0, index) == ranks(large, shard_size, 0, index)


def test_prompts_are_the_splits_own_and_their_order_the_seeds():
    rows = sample_prompts.select(POOL, "train", 0, 90, seed=7).to_pylist()
    assert {row["prompt_id"] for row in rows} == {
        row["prompt_id"] for row in POOL.to_pylist() if row["split"] == "train"
    }
    assert all(row["messages"] == [user(str(row["prompt_ids"][0]))] for row in rows)
    backwards = POOL.take(list(range(119, -1, -1)))
    assert sample_prompts.select(backwards, "train", 0, 90, seed=7).to_pylist() == rows
    assert sample_prompts.select(POOL, "train", 0, 90, seed=8).to_pylist() != rows


def test_too_few_prompts():
    with pytest.raises(InputError, match="the pool has 30 test prompts, but 31 are needed"):
        sample_prompts.select(POOL, "test", 0, 31, seed=7)


# The script


def test_prepare_prompts(tmp_path):
    rows = [{"text": f"What is {number} and {number}?"} for number in range(40)]
    rows += [{"text": QUESTION}, {"text": "What is " * 60}]
    prepare_prompts.main(preparing(tmp_path, rows, {"prompt": "text"}))
    pool = tables.read_rows(tmp_path / "out.parquet", tables.POOL)
    metrics = files.read_json(tmp_path / "out.json")
    assert len(pool) == 40
    assert metrics["dropped"] == {"contaminated": 1, "too_long": 1}
    assert metrics["kept"]["train"] + metrics["kept"]["test"] == 40 == metrics["read"] - 2
    assert metrics["prompt_length"]["max"] > 60
    assert pool[0]["messages"] == [user("What is 0 and 0?")]
    assert all(row["prompt_ids"].count(0) == 1 and row["prompt_ids"][0] == 0 for row in pool)
    written = (tmp_path / "out.parquet").read_bytes()
    prepare_prompts.main(preparing(tmp_path, rows, {"prompt": "text"}))
    assert (tmp_path / "out.parquet").read_bytes() == written


def test_no_prompt_left(tmp_path):
    rows = [{"text": QUESTION}, {"text": " "}]
    with pytest.raises(
        InputError, match="no prompt is left; 2 rows read, 0 kept, dropped: 1 blank, 1 contamin"
    ):
        prepare_prompts.main(preparing(tmp_path, rows, {"prompt": "text"}))
    assert not (tmp_path / "out.parquet").exists()


def test_a_prompt_that_the_template_refuses_is_named(tmp_path):
    tokenizer = make_tokenizer("{{ raise_exception('no') }}")
    with pytest.raises(
        InputError, match=r"rows\.jsonl, prompt 'Hi': the chat template refuses the messages: no"
    ):
        prepare_prompts.tokenize({"a": ([user("Hi")], None)}, tokenizer, "rows.jsonl")


def test_questions_are_in_fastchats_form(tmp_path):
    files.write_jsonl(tmp_path / "question.jsonl", [{"turns": "Why?"}])
    with pytest.raises(InputError, match=r"question\.jsonl, line 1: `turns` is a list of questions"):
        prompts.question_ngrams(str(tmp_path / "question.jsonl"), 5)


def test_several_sources_are_one_pool(tmp_path):
    files.write_jsonl(tmp_path / "more.jsonl", [{"text": "Is it late?"}, {"text": "Is it dark?"}])
    rows = [{"text": "Is it late?"}, {"text": "Is it cold?"}]
    prepare_prompts.main(preparing(tmp_path, rows, {"prompt": "text"}, ("rows.jsonl", "more.jsonl")))
    pool = tables.read_rows(tmp_path / "out.parquet", tables.POOL)
    asked = [row["messages"][0]["content"] for row in pool]
    assert asked == ["Is it late?", "Is it cold?", "Is it dark?"]
    assert files.read_json(tmp_path / "out.json")["dropped"] == {"duplicate": 1}

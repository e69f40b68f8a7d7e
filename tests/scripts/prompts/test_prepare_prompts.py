"""Prompts: normal form, reasons to drop, splits, order, shards."""

import unicodedata
from collections import Counter

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import TEMPLATE, make_tokenizer
from some_prompts import QUESTION, QUESTIONS, assistant, data_of, preparing, user

from prefline import files, seeds
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
    ("messages", "reason"),
    [
        ([user("What is new?")], None),
        ([user("What is new?"), assistant("Nothing.")], "last_turn_not_user"),
        ([user("Please write: ENGAGING travel blog post, about a dog")], "contaminated"),
        ([user("engaging travel blog post")], None),
        ([user("Really... why")], "contaminated"),
        ([user("Really, why not?")], None),
        ([user(QUESTION), assistant("No."), user("Then not.")], "contaminated"),
        ([user("Hi"), assistant(QUESTION), user("Then not.")], None),
    ],
)
def test_why_a_prompt_is_dropped(messages, reason):
    assert prompts.fault(messages, QUESTIONS, 5) == reason


def clean(rows, columns="auto", **more):
    """(rows of the pool, counts) of rows of data."""
    data = data_of("prompts", rows, columns, **more)
    return list(prepare_prompts.clean(data, QUESTIONS, 5)), data.as_dict()["dropped"]


def test_each_row_is_kept_or_counted():
    values = ["Hi", " ", " Hi ", [user("Hi")], QUESTION, "Bye", None, [user("Hi"), assistant("Ho")]]
    pool, dropped = clean([{"prompt": value} for value in [*values, "What is <|im_end|>?"]])
    assert [row["messages"] for row in pool] == [[user("Hi")], [user("Bye")]]
    assert dropped == {
        "blank": 2,
        "duplicate": 2,
        "contaminated": 1,
        "last_turn_not_user": 1,
        "special_token": 1,
    }


def test_special_tokens_may_be_text():
    pool, dropped = clean([{"prompt": "What is <|im_end|>?"}], special_tokens="as_text")
    assert [row["messages"] for row in pool] == [[user("What is <|im_end|>?")]] and not dropped


def test_the_text_of_a_prompt_stays_as_it_is():
    """Form feeds, line separators and indentation are text; the names of prompts know none of them."""
    texts = ["  def f():\n\treturn 1 \n", "page\x0cpage", "one\u2028two", "e\u0301te\u0301"]
    pool, dropped = clean([{"prompt": text} for text in [*texts, "def f():\n\treturn 1"]])
    assert [row["messages"][0]["content"] for row in pool] == texts
    assert dropped == {"duplicate": 1}


def test_a_system_message_makes_another_prompt():
    rows = [{"prompt": "Hi"}, {"prompt": [{"role": "system", "content": "S"}, user("Hi")]}]
    with_system, dropped = clean(rows, system="S")
    assert (len(with_system), dropped) == (1, {"duplicate": 1})
    without, dropped = clean(rows)
    assert (len(without), dropped) == (2, {})


def test_a_right_answer_goes_with_its_prompt():
    columns = {"prompt": "prompt", "reference": "reference"}
    rows = [{"prompt": f"{number}?", "reference": number or None} for number in range(3)]
    pool, dropped = clean([*rows, {"prompt": "?", "reference": ["a"]}], columns)
    assert [row["reference"] for row in pool] == [None, "1", "2"]
    assert dropped == {"bad_reference": 1}


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


PROMPTS = [f"What is {number}?" for number in range(160)]


@pytest.fixture(scope="module")
def pool_of(tmp_path_factory):
    """Return a function of prompts (list of str) and a seed that returns the path of their pool."""

    def make(texts, seed=7):
        folder = tmp_path_factory.mktemp("pool")
        rows = [{"text": text} for text in texts]
        prepare_prompts.main(preparing(folder, rows, {"prompt": "text"}, seed=seed))
        return folder / "out.parquet"

    return make


@pytest.fixture(scope="module")
def pool(pool_of):
    return pool_of(PROMPTS)


def splits_of(pool):
    return Counter(tables.read(pool, tables.POOL)["split"].to_pylist())


def shard(pool, number, index, shard_size, split="train"):
    first, count = ranks(number, shard_size, 0, index, split)
    return sample_prompts.select(pool, split, first, count).to_pylist()


@settings(max_examples=20)
@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 20))
def test_asking_for_more_prompts_only_appends(pool, one, other, shard_size):
    small, large = sorted((one, other))
    for index in range(-(-small // shard_size)):
        before, after = shard(pool, small, index, shard_size), shard(pool, large, index, shard_size)
        assert after[: len(before)] == before
        if len(before) == shard_size:
            assert after == before
    # The call itself, which the workflow watches, stays the same for a full shard.
    for index in range(small // shard_size):
        assert ranks(small, shard_size, 0, index) == ranks(large, shard_size, 0, index)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_order_of_a_split_is_that_of_a_seeded_hash(pool, split):
    number = splits_of(pool)[split]
    rows = sample_prompts.select(pool, split, 0, number).to_pylist()
    held = tables.read_rows(pool, tables.POOL)
    names = sorted(
        (row["prompt_id"] for row in held if row["split"] == split),
        key=lambda name: (seeds.derive(7, "order", name), name),
    )
    assert [row["prompt_id"] for row in rows] == names
    assert {row["messages"][0]["content"] for row in held} == set(PROMPTS)
    assert all(prompts.prompt_id(row["messages"]) == row["prompt_id"] for row in rows)


def test_the_order_of_the_data_does_not_count_and_the_seed_does(pool_of, pool):
    assert pool_of(PROMPTS[::-1]).read_bytes() == pool.read_bytes()
    other = pool_of(PROMPTS, seed=8)
    assert sample_prompts.select(other, "train", 0, 50) != sample_prompts.select(pool, "train", 0, 50)


def test_a_shard_reads_its_groups_of_rows_alone(pool_of, pool, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_IN_GROUP", 7)
    monkeypatch.setattr(tables, "ROWS_IN_PART", 30)
    in_groups, read = pool_of(PROMPTS), []
    group = pq.ParquetFile.read_row_group

    def watched(file, number):
        read.append(number)
        return group(file, number)

    number = splits_of(pool)["test"]
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", watched)
    for split, first, count in (("train", 20, 10), ("test", 0, 9), ("test", number - 1, 1)):
        rows = sample_prompts.select(in_groups, split, first, count)
        read_now, read[:] = len(read), []
        assert read_now <= 3
        assert rows.to_pylist() == sample_prompts.select(pool, split, first, count).to_pylist()
        read.clear()


def test_too_few_prompts(pool):
    number = splits_of(pool)["test"]
    with pytest.raises(InputError, match=f"the pool has {number} test prompts, but {number + 1} are needed"):
        sample_prompts.select(pool, "test", 0, number + 1)


def test_a_pool_without_its_counts_is_refused(tmp_path, pool):
    tables.write(tmp_path / "pool.parquet", tables.read(pool, tables.POOL), tables.POOL)
    with pytest.raises(InputError, match="does not say how many prompts of each split it has; delete"):
        sample_prompts.select(tmp_path / "pool.parquet", "test", 0, 1)


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
    assert [user("What is 0 and 0?")] in [row["messages"] for row in pool]
    assert all(row["prompt_ids"].count(0) == 1 and row["prompt_ids"][0] == 0 for row in pool)
    written = (tmp_path / "out.parquet").read_bytes()
    prepare_prompts.main(preparing(tmp_path, rows, {"prompt": "text"}))
    assert (tmp_path / "out.parquet").read_bytes() == written


def test_no_prompt_left(tmp_path):
    rows = [{"text": QUESTION}, {"text": " "}]
    with pytest.raises(InputError, match="no row is left; 2 rows read, 0 kept, dropped: 1 blank, 1 contamin"):
        prepare_prompts.main(preparing(tmp_path, rows, {"prompt": "text"}))
    assert not (tmp_path / "out.parquet").exists()


def test_a_prompt_that_the_template_refuses_is_dropped_and_counted():
    data = data_of("prompts", [{"prompt": "Hi"}, {"prompt": "Ho"}])
    pool = list(data)
    template = "{{ raise_exception('no') if messages[0].content == 'Hi' }}" + TEMPLATE
    kept, _ = prepare_prompts.tokenize(pool, data, make_tokenizer(template), 60)
    assert [row["messages"] for row in kept] == [[user("Ho")]]
    assert data.as_dict()["dropped"] == {"template": 1}
    assert data.counts[0].examples == ["row 0: the chat template refuses the messages: no"]


def test_roles_that_a_template_does_not_know_are_reasons():
    rows = [{"prompt": [{"role": role, "content": "S"}, user("Hi")]} for role in ("developer", "system")]
    rows.append({"prompt": [user("Hi"), {"role": "tool", "content": "7"}, user("So?")]})
    data = data_of("prompts", [*rows, {"prompt": "Hi"}])
    refuse = "{% if message.role in ['developer', 'tool'] %}{{ raise_exception('unknown role') }}{% endif %}"
    template = TEMPLATE.replace("{% for message in messages %}", "{% for message in messages %}" + refuse)
    kept, _ = prepare_prompts.tokenize(list(data), data, make_tokenizer(template), 60)
    assert len(kept) == 2
    assert data.as_dict()["dropped"] == {"developer_role": 1, "tool_turns": 1}
    data = data_of("prompts", rows)
    assert len(prepare_prompts.tokenize(list(data), data, make_tokenizer(TEMPLATE), 60)[0]) == 3


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

"""Rewards that are Python functions."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefline.data import tables
from prefline.errors import InputError
from prefline.rewards import functions
from scripts.rewards import apply_reward_function

OURS = "prefline/rewards/functions.py"


@pytest.mark.parametrize(
    ("completion", "reference", "reward"),
    [("Paris", "Paris", 1), (" paris. ", "Paris", 1), ("It is Paris", "Paris", 0), ("", "Paris", 0)],
)
def test_exact_match(completion, reference, reward):
    assert functions.exact_match([], completion, reference) == reward


@pytest.mark.parametrize(
    ("completion", "reward"),
    [("2 and 2 are 1,004", 1), ("so 1004.0.", 1), ("1004, not 5", 0), ("none", 0), ("-1004", 0)],
)
def test_last_number(completion, reward):
    assert functions.last_number([], completion, "#### 1004") == reward


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_valid_json(value):
    text = json.dumps(value)
    assert functions.valid_json([], text, None) == 1
    assert functions.valid_json([], f"```json\n{text}\n```", None) == 1
    assert functions.valid_json([], f"Sure: {text}", None) == 0


def test_length_and_regex():
    assert functions.length([], "abc", None) == -3
    assert functions.length([], "abc", None, target=5) == -2
    assert functions.regex([], "a 12 b", None, pattern=r"\d+") == 1
    assert functions.regex([], "a b", None, pattern=r"\d+") == 0


@pytest.fixture
def shard(tmp_path):
    prompts = [
        {
            "prompt_id": name,
            "messages": [{"role": "user", "content": name}],
            "prompt_ids": [1],
            "reference": "b",
        }
        for name in ("p0", "p1")
    ]
    completions = [
        {
            "prompt_id": name,
            "sample": sample,
            "completion_ids": [4],
            "completion": "ab"[sample],
            "finish_reason": "error" if (name, sample) == ("p1", 0) else "stop",
            "seed": 1,
        }
        for name in ("p0", "p1")
        for sample in (0, 1)
    ]
    tables.write(tmp_path / "prompts.parquet", prompts, tables.PROMPTS)
    tables.write(tmp_path / "completions.parquet", completions, tables.COMPLETIONS)

    def check(function, **arguments):
        apply_reward_function.main(
            [
                *("--prompts", str(tmp_path / "prompts.parquet")),
                *("--completions", str(tmp_path / "completions.parquet")),
                *("--function", function, "--arguments", json.dumps(arguments)),
                *("--out", str(tmp_path / "rewards.parquet")),
            ]
        )
        return [row["reward"] for row in tables.read_rows(tmp_path / "rewards.parquet", tables.REWARDS)]

    return check


def test_every_answer_is_rewarded_and_what_the_engine_gave_up_is_not(shard):
    assert shard(f"{OURS}:exact_match") == [0.0, 1.0, None, 1.0]


def test_a_function_of_ones_own(shard, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def f(messages, completion, reference, plus):\n    return len(messages[0]['content']) + plus\n"
    )
    assert shard(f"{tmp_path}/mine.py:f", plus=0.5) == [2.5, 2.5, None, 2.5]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", r"prompt_id p0, sample 0: .*mine.py, line 2: ZeroDivisionError: division by zero"),
        ("exit(1)", r"prompt_id p0, sample 0: .*mine.py, line 2: SystemExit: 1"),
        ("float('nan')", "prompt_id p0, sample 0: the reward function gives nan, which is no finite number"),
        ("'high'", "prompt_id p0, sample 0: the reward function: could not convert string to float"),
    ],
)
def test_a_function_that_fails_is_named_with_its_row(shard, tmp_path, body, message):
    (tmp_path / "mine.py").write_text(f"def f(messages, completion, reference):\n    return {body}\n")
    with pytest.raises(InputError, match=message):
        shard(f"{tmp_path}/mine.py:f")
    assert not (tmp_path / "rewards.parquet").exists()


def test_a_function_that_is_not_there_is_one_sentence(shard, tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*nowhere.py"):
        shard(f"{tmp_path}/nowhere.py:f")
    with pytest.raises(InputError, match="has no function 'exact_mach'; did you mean 'exact_match'"):
        shard(f"{OURS}:exact_mach")
    with pytest.raises(InputError, match=r"TypeError: .*pattern"):
        shard(f"{OURS}:regex")

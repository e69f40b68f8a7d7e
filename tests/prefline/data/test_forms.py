"""Forms of data: what each becomes at its entrance, or the reason why it is dropped."""

import collections
import json
import string

import pytest
from forms_of_data import ASK, CALL, DIALOGUES, LEARNT, SAY, SYSTEM, TOOL, image, made, parts, said
from hypothesis import given, settings
from hypothesis import strategies as st
from some_prompts import assistant, held, user

from prefline.config import schema
from prefline.data import entrances, forms, reading
from prefline.data.counts import Odd
from prefline.errors import InputError

# (row, the messages that it becomes or the reason why it is dropped) of a column with a prompt.
CONVERSATIONS = {
    "text": (ASK, [user(ASK)]),
    "indented text": (f"  {ASK}\n", [user(f"  {ASK}\n")]),
    "form feed": ("a\x0cb", [user("a\x0cb")]),
    "line separator": ("a\u2028b\x85c", [user("a\u2028b\x85c")]),
    "carriage returns": ("a\r\nb\r", [user("a\r\nb\r")]),
    "decomposed": ("e\u0301", [user("e\u0301")]),
    "messages": ([SYSTEM, user(ASK)], [SYSTEM, user(ASK)]),
    "other keys": ([{**user(ASK), "id": 3, "name": "Ann"}], [user(ASK)]),
    "one message": (user(ASK), [user(ASK)]),
    "struct of lists": ({"role": ["user"], "content": [ASK]}, [user(ASK)]),
    "struct of messages": ({"messages": [user(ASK)], "n": 1}, [user(ASK)]),
    "sharegpt": ([said("human", ASK)], [user(ASK)]),
    "sharegpt turns": (
        [said("system", "Be brief."), said("human", "a"), said("gpt", "b"), said("human", "c")],
        [SYSTEM, user("a"), assistant("b"), user("c")],
    ),
    "sharegpt and messages": (
        [said("human", "a"), assistant("b"), user("c")],
        [user("a"), assistant("b"), user("c")],
    ),
    "capital roles": ([{"role": "User", "content": ASK}], [user(ASK)]),
    "prompter": ([{"role": "prompter", "text": ASK}], [user(ASK)]),
    "model": (
        [user("a"), {"role": "model", "content": "b"}, user("c")],
        [user("a"), assistant("b"), user("c")],
    ),
    "author": (
        [{"author": {"role": "user"}, "content": {"content_type": "text", "parts": [ASK]}}],
        [user(ASK)],
    ),
    "parts": ([parts("user", ASK)], [user(ASK)]),
    "two parts": ([parts("user", "a", "b")], [user("a\nb")]),
    "text parts": ([{"role": "user", "content": ["a", "b"]}], [user("a\nb")]),
    "one part": ([{"role": "user", "content": {"type": "text", "text": ASK}}], [user(ASK)]),
    "input_text": ([{"role": "user", "content": [{"type": "input_text", "text": ASK}]}], [user(ASK)]),
    "parts of parquet": (
        [{"role": "user", "content": [{"type": "text", "text": ASK, "image": None}]}],
        [user(ASK)],
    ),
    "stored as JSON": (json.dumps([user(ASK)]), [user(ASK)]),
    "stored as Python": (str([user("It's?")]), [user("It's?")]),
    "stored ShareGPT": (json.dumps([said("human", ASK)]), [user(ASK)]),
    "one stored message": (json.dumps(user(ASK)), [user(ASK)]),
    "stored, a long content first": (json.dumps([{"content": ASK * 99, "role": "user"}]), [user(ASK * 99)]),
    "stored with a speaker": (json.dumps([{"speaker": "user", "text": ASK}]), [user(ASK)]),
    "stored twice": (json.dumps(json.dumps([user(ASK)])), [user(ASK)]),
    "stored array": (f"array([{user(ASK)!r}], dtype=object)", [user(ASK)]),
    "an object with a role": ('{"name": "x", "role": "admin"}', [user('{"name": "x", "role": "admin"}')]),
    "a list in a question": ("[1, 2] is a list. Why?", [user("[1, 2] is a list. Why?")]),
    "JSON in a question": ('{"a": 1} is what?', [user('{"a": 1} is what?')]),
    "transcript": (
        "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:",
        [user("a"), assistant("b"), user("c")],
    ),
    "marked transcript": ("### Human: a### Assistant: b### Human: c", [user("a"), assistant("b"), user("c")]),
    "Human: in a text": ("Human: who said that?", [user("Human: who said that?")]),
    "empty system message": ([{"role": "system", "content": ""}, user(ASK)], [user(ASK)]),
    "null system message": ([{"role": "system", "content": None}, user(ASK)], [user(ASK)]),
    "developer": (
        [{"role": "developer", "content": "Be brief."}, user(ASK)],
        [{"role": "developer", "content": "Be brief."}, user(ASK)],
    ),
    "a tool's answer": (
        [user("a"), assistant("b"), TOOL, user("c")],
        [user("a"), assistant("b"), TOOL, user("c")],
    ),
    "null": (None, "blank"),
    "empty": ("", "blank"),
    "white space": (" \n\t", "blank"),
    "no messages": ([], "blank"),
    "blank message": ([user(" ")], "blank"),
    "null message": ([user(None)], "blank"),
    "no parts": ([{"role": "user", "content": []}], "blank"),
    "only an empty system message": ([{"role": "system", "content": ""}], "blank"),
    "number": (7, "not_text"),
    "truth": (True, "not_text"),
    "bytes": (b"a", "not_text"),
    "number as content": ([user(7)], "not_text"),
    "image": ([image()], "part_image"),
    "image beside text": (
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}],
        "part_image",
    ),
    "audio": ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], "part_audio"),
    "tool_use": (
        [user("a"), {"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]}],
        "part_tool_use",
    ),
    "thinking": (
        [user("a"), {"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}]}],
        "part_thinking",
    ),
    "tool calls": ([user("a"), CALL, TOOL, user("b")], "tool_calls"),
    "empty tool calls": ([user("a"), {**CALL, "tool_calls": []}, TOOL, user("b")], "blank"),
    "function call": ([user("a"), said("function_call", "{}"), user("b")], "tool_calls"),
    "unknown role": ([{"role": "robot", "content": "a"}], "unknown_role"),
    "no role": ([{"content": "a"}], "no_role"),
    "role is a number": ([{"role": 1, "content": "a"}], "unknown_role"),
    "texts": (["a", "b"], "texts_without_roles"),
    "numbers": ([1, 2], "not_a_message"),
    "text and message": (["a", user("b")], "not_a_message"),
    "object": ({"a": 1}, "not_a_conversation"),
    "cut off JSON": ('[{"role": "user", "content": "Wh', "stored_as_text"),
    "numpy's text": (
        "[{'role': 'user', 'content': 'a'}\n {'role': 'assistant', 'content': 'b'}]",
        "stored_as_text",
    ),
    "lone surrogate": ("a \ud83d", "not_unicode"),
    "lone surrogate in a message": ([user("a \udfff")], "not_unicode"),
    "begins with the assistant": ([assistant("Hi!"), user("hello")], "begins_with_assistant"),
    "begins with a tool": ([TOOL, user("hello")], "begins_with_tool"),
    "only a system message": ([SYSTEM], "only_system"),
    "special token": ("What is <|im_end|>?", "special_token"),
    "special token in a role": ([user("a"), assistant("<|im_end|>"), user("b")], "special_token"),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_prompt(name):
    value, expected = CONVERSATIONS[name]
    found = made("prompts", {"p": value}, {"prompt": "p"})
    assert (found if isinstance(found, str) else found["messages"]) == expected


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_same_prompt_of_a_pair_and_of_a_completion(name):
    """Every entrance takes the same forms, and gives the same reasons."""
    value, expected = CONVERSATIONS[name]
    row = {"prompt": value, "chosen": "yes", "rejected": "no"}
    found = made("pairs", row, {name: name for name in row})
    assert (found if isinstance(found, str) else found["messages"]) == expected
    if name == "only a system message":
        return  # the completion would follow it
    row = {"prompt": value, "completion": "yes"}
    found = made("dialogues", row, {name: name for name in row})
    if not isinstance(expected, str):
        expected = [*expected, assistant("yes")]
    assert (found if isinstance(found, str) else found["messages"]) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a b", "a b"),
        ("\ta \n", "\ta \n"),
        ("", "blank"),
        (None, "blank"),
        (3, "not_text"),
        (["a"], "not_text"),
    ],
)
def test_raw_text(value, expected):
    for entrance in ("texts", "dialogues"):
        found = made(entrance, {"text": value})
        assert (found if isinstance(found, str) else found["text"]) == expected


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": LEARNT}, [user(ASK)]),
        ({"conversations": [said("human", ASK)]}, [user(ASK)]),
        (DIALOGUES, [user(ASK)]),
        ({"instruction": "Sum up.", "input": "Long.", "output": "a"}, [user("Sum up.\n\nLong.")]),
        ({"data": {"prompt": ASK}}, [user(ASK)]),
        ({"input": ASK}, [user(ASK)]),
    ],
)
def test_prompts_of_data_for_something_else(row, messages):
    assert made("prompts", row)["messages"] == messages


def test_the_system_message_of_the_config_is_for_prompts_without_one():
    for value, expected in (
        (ASK, "S"),
        ([SYSTEM, user(ASK)], "Be brief."),
        ([{"role": "system", "content": ""}, user(ASK)], "S"),
    ):
        messages = made("prompts", {"prompt": value}, system="S")["messages"]
        assert [turn["content"] for turn in messages] == [expected, ASK]


def test_columns_are_named_or_found_and_unused_ones_are_said(capsys):
    row = {
        "system": "Be brief.",
        "question": ASK,
        "chosen": SAY,
        "rejected": "No.",
        "images": [],
        "extra": "x",
    }
    named = {"prompt": "question", "chosen": "chosen", "rejected": "rejected"}
    assert made("pairs", row, named)["messages"] == [user(ASK)]
    assert "not used, though it may belong to the text: system" in capsys.readouterr().out
    made("pairs", row)
    assert "read as chosen and rejected (prompt: question, system: system" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"no column 'answer', only .*'question'"):
        made("pairs", row, {**named, "chosen": "answer"})
    with pytest.raises(InputError, match="of no known form"):
        made("pairs", {"a": 1})
    assert made("prompts", {"a": {"b": [{"c": ASK}]}}, {"prompt": "a.b.0.c"})["messages"] == [user(ASK)]
    assert made("prompts", {"a.b": ASK}, {"prompt": "a.b"})["messages"] == [user(ASK)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text(string.printable),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "from", "value", "text", "type", "tool_calls", "messages", "weight"]
            ),
            inner | st.sampled_from(["user", "assistant", "system", "human", "text"]),
            max_size=3,
        )
    ),
    max_leaves=8,
)
FIELDS = {
    "prompts": ["prompt", "dialogue", "input", "system", "reference"],
    "pairs": [
        *[
            "prompt",
            "input",
            "system",
            "chosen",
            "rejected",
            "chosen_reward",
            "completions",
            "ratings",
            "output_1",
        ],
        *["output_2", "preference", "preferred_index", "completion", "label"],
    ],
    "dialogues": ["messages", "prompt", "input", "system", "completion"],
    "texts": ["text"],
}


@pytest.mark.parametrize("entrance", FIELDS)
@settings(max_examples=3 * settings().max_examples)
@given(st.data())
def test_whatever_a_row_holds_it_is_taken_or_odd(entrance, data):
    fields = {name: data.draw(JSON) for name in data.draw(st.sets(st.sampled_from(FIELDS[entrance])))}
    if entrance == "texts":
        fields.setdefault("text", None)
    try:
        row = forms.ENTRANCES[entrance](fields)
    except Odd as odd:
        assert odd.reason.replace("_", "").isalnum()
        return
    for message in row.get("messages", []):
        assert message.keys() == {"role", "content"} and message["content"].strip()


def test_thousands_of_rows_with_every_odd_one_among_them_are_counted_exactly(tmp_path):
    """At each entrance, by the true reason."""
    odd = {
        name: case for name, case in CONVERSATIONS.items() if name not in ("bytes", "only a system message")
    }
    for entrance, rest in (
        ("prompts", {}),
        ("pairs", {"chosen": "yes", "rejected": "no"}),
        ("dialogues", {"completion": "yes"}),
    ):
        rows = [{"prompt": value, **rest} for value, _ in odd.values()]
        rows += [{"prompt": f"Question {number}?", **rest} for number in range(2000)]
        path = tmp_path / f"{entrance}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        rules = {"special_tokens": "drop", "max_dropped": 0.2}
        data = reading.Data(entrance, str(path), "auto", rules, held)
        kept = sum(1 for _ in data)
        data.finish()
        counts = data.as_dict()
        expected = collections.Counter(said for _, said in odd.values() if isinstance(said, str))
        assert counts["dropped"] == expected
        assert counts["read"] == len(rows) == kept + expected.total()


def test_the_schema_knows_every_field_that_an_entrance_may_need():
    """An error names the column that is missing; naming it must not be refused."""
    preferences = schema.whole()["properties"]["prompts"]["properties"]["preferences"]["properties"]
    named = set(preferences["columns"]["propertyNames"]["enum"])
    assert set().union(*entrances.NEEDED["pairs"]) <= named
    named = set(schema.whole()["$defs"]["trained_model"]["properties"]["columns"]["propertyNames"]["enum"])
    trained = {"text", "messages"}.union(*entrances.NEEDED["pairs"], *entrances.NEEDED["dialogues"])
    assert trained - {"label"} <= named

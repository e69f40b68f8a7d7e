"""Data that could mean two things: it is refused, or read as what it surely is."""

import json

import pytest
from some_prompts import assistant, user

from prefline import files
from prefline.data import reading
from prefline.errors import InputError

RULES = {"special_tokens": "drop", "max_dropped": 0.2}


def kept(folder, entrance, rows, columns="auto"):
    files.write_jsonl(folder / "a.jsonl", rows)
    data = reading.Data(entrance, str(folder / "a.jsonl"), columns, RULES)
    found = list(data)
    data.finish()
    return found


def test_json_answers_stay_text_unless_most_answers_are_stored_dialogues(tmp_path, capsys):
    asked = [
        json.dumps({"from": "Paris", "to": "Rome"}),
        json.dumps([user("Hello"), assistant("Hi")]),
        json.dumps(assistant("Hi")),
    ]
    rows = [{"prompt": "Write JSON.", "chosen": text, "rejected": "I cannot."} for text in asked]
    assert [row["chosen"] for row in kept(tmp_path, "pairs", rows)] == asked
    assert "2 of the first 6 answers look like conversations" in capsys.readouterr().out
    rows = [{"prompt": "Write JSON.", "completion": text} for text in [*asked, "Fine.", "Sure."]]
    assert [row["messages"][-1]["content"] for row in kept(tmp_path, "dialogues", rows)] == [
        *asked,
        "Fine.",
        "Sure.",
    ]
    turns = [{"content": "a" * length, "role": "user"} for length in (1, 2, 998, 999)]
    rows = [{side: str([turn, assistant(side)]) for side in ("chosen", "rejected")} for turn in turns]
    assert [row["chosen"] for row in kept(tmp_path, "pairs", rows)] == ["chosen"] * 4


@pytest.mark.parametrize("column", ["preference", "labels"])
def test_preferences_of_only_0_and_1_are_refused(tmp_path, column):
    columns = {"prompt": "q", "output_1": "a", "output_2": "b", "preference": column}
    rows = [{"q": f"{place}?", "a": "x", "b": "y", column: place % 2} for place in range(4)]
    for odd in (1, 0.5, -1, 1.5):  # none of which makes a tie of 0
        rows[1][column] = odd
        with pytest.raises(InputError, match=r"2 preferences are 0, .* name the column preferred_index"):
            kept(tmp_path, "pairs", rows, columns)
    rows[1][column], rows[0][column] = 1, 2
    assert [row["chosen"] for row in kept(tmp_path, "pairs", rows, columns)] == ["y", "x", "x"], "and a tie"


@pytest.mark.parametrize("tie", ["tie", "tie (bothbad)", "both_bad", "Both bad", "draw", "neither"])
def test_words_of_preferences(tmp_path, tie):
    words = ["model_a", "MODEL_B", "first", "response_2", tie]
    rows = [{"prompt": f"{word}?", "output_1": "x", "output_2": "y", "preference": word} for word in words]
    assert [row["chosen"] for row in kept(tmp_path, "pairs", rows)] == ["x", "y", "x", "y"]


def test_an_input_alone_is_the_prompt(tmp_path):
    rows = [{"system": "S", "input": f"{n}?", "chosen": "c", "rejected": "r"} for n in range(3)]
    assert [row["messages"][-1]["content"] for row in kept(tmp_path, "pairs", rows)] == ["0?", "1?", "2?"]


@pytest.mark.parametrize(
    "said", ["Human: Hi\n\nAssistant: Bye", "Assistant: Hi\n\nHuman: Hello\n\nAssistant: Bye"]
)
def test_an_answer_that_plays_a_dialogue_stays_an_answer(tmp_path, said, capsys):
    answers = [said, "Fine.", "Sure.", "No."]
    rows = [{"prompt": "Write a play.", "completion": answer} for answer in answers]
    assert [row["messages"][1:] for row in kept(tmp_path, "dialogues", rows)] == [
        [assistant(answer)] for answer in answers
    ]
    assert "1 of the first 4 answers look like conversations" in capsys.readouterr().out
    rows = [{"prompt": "Play.", "chosen": answer, "rejected": "Never."} for answer in answers]
    assert [row["chosen"] for row in kept(tmp_path, "pairs", rows)] == answers


@pytest.mark.parametrize("entrance", ["dialogues", "texts"])
def test_conversations_stored_in_a_column_of_texts_are_no_text(tmp_path, entrance):
    rows = [{"text": str([{"role": "user", "content": f"{n}?"}, assistant("a")])} for n in range(6)]
    with pytest.raises(InputError, match=r"6 stored_as_text.* name its column `messages` for SFT"):
        kept(tmp_path, entrance, rows)
    rows = [{"text": "A story."}] * 10 + rows[:1]
    assert len(kept(tmp_path, entrance, rows)) == 11


def test_an_answer_is_never_read_as_the_prompt(tmp_path):
    with pytest.raises(InputError, match="name the column of prompts as `prompt`"):
        kept(tmp_path, "prompts", [{"Question": "Why?", "chosen": "Because.", "rejected": "No."}])


def test_two_structs_that_could_be_meant_are_refused(tmp_path):
    rows = [{"data": {"prompt": "right?"}, "a": {"prompt": "wrong?"}}]
    with pytest.raises(InputError, match=r"several columns could be meant: a\.prompt or data\.prompt"):
        kept(tmp_path, "prompts", rows)
    assert kept(tmp_path, "prompts", [{**rows[0], "prompt": "top?"}])[0]["messages"] == [user("top?")]


def test_columns_and_keys_that_hold_nothing_are_passed_over(tmp_path):
    turns = [user("a?"), assistant("b")]
    (row,) = kept(tmp_path, "dialogues", [{"messages": None, "prompt": "a?", "completion": "b"}])
    assert row["messages"] == turns
    both = [{"from": None, "value": None, **turn} for turn in turns]
    nothing = {"role": None, "content": None}
    sharegpt = [{**nothing, "from": turn["role"], "value": turn["content"]} for turn in turns]
    rows = kept(tmp_path, "dialogues", [{"messages": both}, {"messages": sharegpt}])
    assert [row["messages"] for row in rows] == [turns, turns]
    (tmp_path / "a.jsonl").write_text('{"prompt": "a?", "input": NaN, "system": NaN, "reference": NaN}\n')
    columns = {name: name for name in ("prompt", "input", "system", "reference")}
    (row,) = reading.Data("prompts", str(tmp_path / "a.jsonl"), columns, RULES)
    assert row["messages"] == [user("a?")] and row["reference"] is None


@pytest.mark.parametrize(("value", "said"), [(12.0, "12"), (0.5, "0.5"), (3, "3"), ("", None)])
def test_references_are_written_as_people_write_them(tmp_path, value, said):
    columns = {"prompt": "prompt", "reference": "answer"}
    assert kept(tmp_path, "prompts", [{"prompt": "a?", "answer": value}], columns)[0]["reference"] == said


def test_marks_of_a_turn(tmp_path, capsys):
    def dialogue(**marks):
        return {"messages": [user("a?"), {**assistant("b"), **marks}]}

    assert len(kept(tmp_path, "dialogues", [dialogue(tool_calls=[]), dialogue(loss=True, masked=False)])) == 2
    for marks in ({"loss": False}, {"masked": True}, {"weight": 0.0}):
        with pytest.raises(InputError, match="1 not_to_learn"):
            kept(tmp_path, "dialogues", [dialogue(**marks)])
    kept(tmp_path, "dialogues", [dialogue(reasoning_content="Hm."), dialogue(thinking="Hm."), dialogue()])
    assert "2 rows have reasoning beside the content" in capsys.readouterr().out


def test_a_type_of_part_is_never_a_reason_that_the_config_asks_for(tmp_path):
    rows = [{"prompt": [{"role": "user", "content": [{"type": "tie"}]}]}] * 50 + [{"prompt": "a?"}]
    with pytest.raises(InputError, match="50 part_tie"):
        kept(tmp_path, "prompts", rows)


def test_stored_dialogues_in_a_list_of_answers_are_read(tmp_path):
    texts = [json.dumps([user("a?"), assistant(said)]) for said in ("good", "bad")]
    for answers in (texts, [{"response": text} for text in texts]):
        (row,) = kept(tmp_path, "pairs", [{"prompt": "a?", "generations": answers, "ratings": [2, 1]}])
        assert (row["chosen"], row["rejected"]) == ("good", "bad")


def test_chosen_beside_a_prompt_is_an_answer_to_learn(tmp_path):
    rows = [{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}] * 2
    rows += [{"prompt": "Why?", "chosen": [user("Why?"), assistant("So.")], "rejected": "No."}]
    found = [row["messages"] for row in kept(tmp_path, "dialogues", rows)]
    assert found == [[user("Why?"), assistant("Because.")]] * 2 + [[user("Why?"), assistant("So.")]]


def test_dialogues_in_which_no_assistant_speaks_are_refused_when_they_are_read(tmp_path):
    with pytest.raises(InputError, match=r"3 no_assistant; .* For example, .*no assistant speaks"):
        kept(tmp_path, "dialogues", [{"messages": [user("Why?")]}] * 3)
